import math

import pytest
import torch

from core.errors import BadSetting
from core.sampling.prediction import Prediction, sampling_for
from core.sampling.tables import EDMTable, discrete_table, distilled_table
from core.settings import SCHEDULERS


def noisy(sigma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A clean latent, noise, and their sum."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    return clean, noise, clean + sigma * noise


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6, 4518.0])
def test_a_perfect_epsilon_network_gives_back_the_clean_latent(sigma):
    clean, noise, x = noisy(sigma)
    level = torch.tensor(sigma, dtype=torch.float64)
    x0 = Prediction("epsilon", discrete_table()).denoised(x, noise, level)
    torch.testing.assert_close(x0, clean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6, 4518.0])
def test_a_perfect_v_network_gives_back_the_clean_latent(sigma):
    clean, noise, x = noisy(sigma)
    alpha = 1 / math.sqrt(1 + sigma**2)  # Salimans and Ho 2022: v = alpha * noise - sigma_vp * clean
    velocity = alpha * noise - sigma * alpha * clean
    level = torch.tensor(sigma, dtype=torch.float64)
    x0 = Prediction("v", discrete_table()).denoised(x, velocity, level)
    torch.testing.assert_close(x0, clean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 120.0])
def test_edm_follows_table_1_of_the_paper(sigma):
    _, output, x = noisy(sigma)
    data = 0.5
    c_skip = data**2 / (sigma**2 + data**2)
    c_out = sigma * data / math.sqrt(sigma**2 + data**2)
    c_in = 1 / math.sqrt(sigma**2 + data**2)
    prediction = Prediction("edm", EDMTable())
    level = torch.tensor(sigma, dtype=torch.float64)
    torch.testing.assert_close(prediction.denoised(x, output, level), c_skip * x + c_out * output)
    torch.testing.assert_close(prediction.scale_input(x, level), c_in * x)


def test_lcm_keeps_little_but_something_of_x():
    _, output, x = noisy(1.0)
    table = distilled_table()
    level = table.sigmas[0].double()  # timestep 19
    c_skip, c_out = 0.25 / (190**2 + 0.25), 190 / math.sqrt(190**2 + 0.25)
    expected = c_out * (x - level * output) + c_skip * x
    torch.testing.assert_close(Prediction("lcm", table).denoised(x, output, level), expected)


def test_input_has_unit_variance_when_the_data_has():
    sigma = torch.tensor(3.0, dtype=torch.float64)
    x = torch.full((1, 4, 2, 2), math.sqrt(10), dtype=torch.float64)
    torch.testing.assert_close(Prediction("epsilon", discrete_table()).scale_input(x, sigma), torch.ones_like(x))


def test_prediction_keeps_the_latents_dtype():
    x = torch.ones(1, 4, 2, 2)
    for kind, table in (
        ("epsilon", discrete_table()),
        ("v", discrete_table()),
        ("edm", EDMTable()),
        ("lcm", distilled_table()),
    ):
        prediction = Prediction(kind, table)
        sigma = torch.tensor(1.5, dtype=torch.float64)
        assert prediction.denoised(x, x, sigma).dtype == prediction.scale_input(x, sigma).dtype == torch.float32


@pytest.mark.parametrize(
    ("scheduler", "given", "kind", "entries", "used"),
    [
        ("lcm", "epsilon", "lcm", 50, "sgm_uniform"),
        ("tcd", "epsilon", "epsilon", 50, "sgm_uniform"),
        ("lcm", "v", "lcm_v", 50, "sgm_uniform"),
        ("tcd", "v", "v", 50, "sgm_uniform"),
        ("edm_playground_v2.5", "v", "edm", 1000, "karras"),
        ("karras", "v", "v", 1000, "karras"),
        ("turbo", "v", "v", 1000, "turbo"),
    ],
)
def test_some_schedulers_stand_for_a_table_of_their_own(scheduler, given, kind, entries, used):
    prediction, schedule = sampling_for(scheduler, given)
    assert (prediction.kind, len(prediction.table.sigmas), schedule) == (kind, entries, used)


def test_an_edm_checkpoint_gets_the_continuous_table_with_every_scheduler():
    prediction, schedule = sampling_for("exponential", "edm")
    assert (prediction.kind, prediction.table.sigma_max, schedule) == ("edm", 120.0, "exponential")


def test_zero_terminal_snr_acts_on_the_full_table_only():
    assert sampling_for("karras", "v", True)[0].table.sigma_max > 4000
    assert sampling_for("lcm", "v", True)[0].table.sigma_max < 15


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "edm"])
def test_every_scheduler_has_a_sampling_or_says_that_it_does_not_suit(scheduler, prediction):
    if prediction == "edm" and scheduler in ("lcm", "tcd"):
        with pytest.raises(BadSetting, match=rf"scheduler {scheduler} does not suit .* EDM"):
            sampling_for(scheduler, prediction)
    else:
        assert sampling_for(scheduler, prediction)[1] in SCHEDULERS


def test_a_consistency_model_is_read_alike_whether_it_says_noise_or_velocity():
    """What both say is one picture: x = x0 + sigma n, v = (n - sigma x0) / sqrt(1 + sigma^2)."""
    x0, noise, x = noisy(2.0)
    level = torch.tensor(2.0, dtype=torch.float64)
    velocity = (noise - level * x0) / (1 + level**2).sqrt()
    told = [
        Prediction(kind, distilled_table()).denoised(x, said, level)
        for kind, said in (("lcm", noise), ("lcm_v", velocity))
    ]
    torch.testing.assert_close(*told)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "edm"])
def test_strict_lcm_and_tcd_take_every_checkpoint_for_one_of_noise(prediction):
    kinds = [sampling_for(scheduler, prediction, strict=True)[0].kind for scheduler in ("lcm", "tcd", "karras")]
    assert kinds == ["lcm", "epsilon", prediction]


def test_q05b_progress_by_the_label_is_about_1_throughout_with_edm():
    """1 - t / 999 with t = ln(sigma) / 4; by the logarithm of sigma otherwise."""
    by_label = sampling_for("edm_playground_v2.5", "epsilon", strict=True)[0]
    plain = sampling_for("edm_playground_v2.5", "epsilon")[0]
    for sigma, label, share in ((120.0, 1.19687, 0.0), (0.5, -0.17329, 0.49807), (0.002, -1.55365, 1.0)):
        level = torch.tensor(sigma)
        assert by_label.progress(level) == pytest.approx(1 - label / 999, abs=1e-6)
        assert plain.progress(level) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("scheduler", ["karras", "lcm", "tcd"])
def test_progress_by_the_label_is_the_tables_where_labels_are_training_steps(scheduler):
    by_label, plain = (sampling_for(scheduler, "epsilon", strict=strict)[0] for strict in (True, False))
    for sigma in (14.6, 1.0, 0.14):
        assert by_label.progress(torch.tensor(sigma)) == plain.progress(torch.tensor(sigma))


def test_unknown_prediction_is_named():
    with pytest.raises(BadSetting, match=r"prediction type is 'flow'.*epsilon, v, edm"):
        sampling_for("karras", "flow")


@pytest.mark.parametrize("scheduler", ["karras", "lcm", "tcd", "edm_playground_v2.5"])
@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("sigma", [0.14, 1.0, 14.6])
def test_the_networks_output_is_found_again_from_the_clean_guess(scheduler, kind, sigma):
    prediction, _ = sampling_for(scheduler, kind)
    _, output, x = noisy(sigma)
    level = torch.tensor(sigma, dtype=torch.float64)
    found = prediction.output_of(x, prediction.denoised(x, output, level), level)
    torch.testing.assert_close(found, output, rtol=1e-6, atol=1e-6)
