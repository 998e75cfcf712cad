"""Numbers are those of the specification's test vectors, and of Lin et al. 2024."""

import math

import pytest
import torch

from core.sampling.tables import EDMTable, discrete_table, distilled_table


def test_discrete_table_has_the_noise_levels_of_sdxl():
    sigmas = discrete_table().sigmas
    expected = {0: 0.0291672, 1: 0.041314, 99: 0.34167, 499: 1.6129, 699: 3.3211, 998: 14.526, 999: 14.6146}
    assert sigmas.dtype == torch.float32 and len(sigmas) == 1000
    for step, sigma in expected.items():
        assert sigmas[step].item() == pytest.approx(sigma, rel=5e-5)


def test_discrete_table_keeps_the_signal_shares():
    alphas = discrete_table().alphas_cumprod
    assert alphas[0].item() == pytest.approx(0.99915, rel=1e-5)
    assert alphas[999].item() == pytest.approx(0.0046601, rel=5e-5)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_discrete_table_agrees_with_diffusers(zero_terminal_snr):
    from diffusers import DDIMScheduler

    peer = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=zero_terminal_snr
    )
    ours = discrete_table(zero_terminal_snr=zero_terminal_snr).alphas_cumprod
    torch.testing.assert_close(ours[:-1], peer.alphas_cumprod[:-1].float(), rtol=2e-4, atol=1e-9)


def test_zero_terminal_snr_ends_in_almost_pure_noise_and_begins_alike():
    table, plain = discrete_table(zero_terminal_snr=True), discrete_table()
    assert table.sigma_max == pytest.approx(math.sqrt(1 / 4.8973451890853435e-08 - 1), rel=1e-5)
    assert table.sigma_min == pytest.approx(plain.sigma_min, rel=1e-4)
    assert (table.sigmas.diff() > 0).all()


def test_distilled_table_has_every_twentieth_level():
    table = distilled_table()
    assert len(table.sigmas) == 50
    assert table.sigma_min == pytest.approx(0.134451, rel=1e-5)
    assert table.sigma_max == pytest.approx(14.6146, rel=1e-5)
    assert len(table.alphas_cumprod) == 1000
    full = discrete_table()
    for k in (0, 7, 49):
        assert table.sigmas[k] == full.sigmas[20 * k + 19]
        assert table.timestep(table.sigmas[k]).item() == 20 * k + 19


@pytest.mark.parametrize("table", [discrete_table(), distilled_table(), discrete_table(zero_terminal_snr=True)])
def test_timestep_and_sigma_are_inverse_at_every_entry(table):
    t = table.timestep(table.sigmas)
    torch.testing.assert_close(table.sigma(t), table.sigmas, rtol=1e-5, atol=0)


def test_timestep_is_the_nearest_entry_by_ratio():
    table = discrete_table()
    low, high = table.sigmas[500].item(), table.sigmas[501].item()
    middle = math.sqrt(low * high)
    assert table.timestep(torch.tensor(middle * 0.9999)).item() == 500
    assert table.timestep(torch.tensor(middle * 1.0001)).item() == 501
    assert table.timestep(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    assert table.timestep(torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32


def test_sigma_interpolates_its_logarithm_and_stays_inside_the_table():
    table = discrete_table()
    low, high = table.sigmas[500].item(), table.sigmas[501].item()
    assert table.sigma(torch.tensor(500.5)).item() == pytest.approx(math.sqrt(low * high), rel=1e-5)
    assert table.sigma(torch.tensor([-5.0, 2000.0])).tolist() == pytest.approx([table.sigma_min, table.sigma_max])
    distilled = distilled_table()
    assert distilled.sigma(torch.tensor([0.0, 19.0])).tolist() == pytest.approx([distilled.sigma_min] * 2)


def test_percent_to_sigma():
    table = discrete_table()
    assert table.percent_to_sigma(0.5) == pytest.approx(1.6156, rel=5e-5)
    assert table.percent_to_sigma(0.0) == 999999999.9
    assert table.percent_to_sigma(1.0) == 0.0
    edm = EDMTable()
    assert edm.percent_to_sigma(0.5) == pytest.approx(math.sqrt(0.002 * 120))
    assert edm.percent_to_sigma(-1) == 999999999.9 and edm.percent_to_sigma(2) == 0.0


def test_edm_labels_are_a_quarter_of_the_logarithm():
    table = EDMTable()
    assert table.timestep(torch.tensor(math.e**2)).item() == pytest.approx(0.5)
    assert table.sigma(torch.tensor(0.5)).item() == pytest.approx(math.e**2)
    assert table.sigmas[[0, -1]].tolist() == pytest.approx([0.002, 120.0])
    assert table.sigma_data == 0.5


@pytest.mark.parametrize("table", [discrete_table(), EDMTable()])
def test_progress_runs_from_0_to_1_and_inverts_percent_to_sigma(table):
    """Of an EDM table too, by its noise levels and not by its labels (register: Q05b)."""
    assert table.progress(torch.tensor(table.sigma_max)) == 0
    assert table.progress(torch.tensor(table.sigma_min)) == pytest.approx(1)
    assert table.progress(torch.tensor(1e6)) == 0 and table.progress(torch.tensor(1e-6)) == 1
    for percent in (0.1, 0.5, 0.9):
        assert table.progress(torch.tensor(table.percent_to_sigma(percent))) == pytest.approx(percent, abs=1e-3)
