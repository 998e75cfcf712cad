"""Numbers are the specification's test vectors (five significant digits)."""

import pytest
import torch

from core.errors import BadSetting
from core.sampling.prediction import sampling_for
from core.sampling.samplers import SAMPLERS
from core.sampling.schedules import SCHEDULERS, calculate_sigmas, calculate_sigmas_all, karras_sigmas, slice_sigmas
from core.sampling.tables import EDMTable, discrete_table, distilled_table
from core.settings import SCHEDULERS as NAMES

TABLE = discrete_table()


def test_every_scheduler_of_the_settings_is_there():
    assert set(SCHEDULERS) == set(NAMES)


@pytest.mark.parametrize(
    ("scheduler", "steps", "expected"),
    [
        ("karras", 10, "14.615 9.1029 5.4784 3.1686 1.7494 0.91407 0.44692 0.2014 0.08191 0.029167 0"),
        ("exponential", 10, "14.615 7.3249 3.6712 1.84 0.92222 0.46222 0.23166 0.11611 0.058195 0.029167 0"),
        ("normal", 10, "14.615 7.8399 4.6092 2.9183 1.9502 1.3449 0.93236 0.62498 0.36866 0.029167 0"),
        ("sgm_uniform", 8, "14.615 7.302 4.0861 2.496 1.6156 1.0712 0.69515 0.3997 0"),
        ("simple", 10, "14.615 8.3028 5.0878 3.3211 2.2765 1.6129 1.1606 0.82986 0.56928 0.34167 0"),
        ("ddim_uniform", 10, "8.3907 5.1344 3.3478 2.2929 1.6237 1.1682 0.83565 0.57405 0.34619 0.041314 0"),
        ("turbo", 4, "14.615 8.3028 5.0878 3.3211 0"),
        (
            "align_your_steps",
            10,
            "14.615 6.3184 3.7682 2.1811 1.3405 0.86207 0.55507 0.37985 0.23324 0.11142 0",
        ),
    ],
)
def test_schedule_of_the_full_table(scheduler, steps, expected):
    sigmas = calculate_sigmas_all("euler", TABLE, scheduler, steps)
    assert sigmas.dtype == torch.float32
    assert sigmas.tolist() == pytest.approx([float(s) for s in expected.split()], rel=5e-5)


def test_karras_30():
    sigmas = calculate_sigmas_all("euler", TABLE, "karras", 30)
    assert len(sigmas) == 31
    assert sigmas[:3].tolist() == pytest.approx([14.615, 12.661, 10.935], rel=5e-5)
    assert sigmas[14:17].tolist() == pytest.approx([1.408, 1.1513, 0.93573], rel=5e-5)
    assert sigmas[-4:].tolist() == pytest.approx([0.056354, 0.040858, 0.029167, 0], rel=5e-5)


def test_align_your_steps_30_is_interpolated():
    """The reference samples with `normal` in its place (register: Q01)."""
    sigmas = calculate_sigmas_all("euler", TABLE, "align_your_steps", 30)
    assert len(sigmas) == 31
    assert sigmas[:5].tolist() == pytest.approx([14.615, 11.051, 8.3561, 6.3184, 5.3184], rel=5e-5)
    assert sigmas[-4:].tolist() == pytest.approx([0.11142, 0.071275, 0.045595, 0], rel=5e-5)


def test_align_your_steps_has_a_row_for_sd1():
    sigmas = calculate_sigmas_all("euler", TABLE, "align_your_steps", 10, sdxl=False)
    assert sigmas[1:4].tolist() == pytest.approx([6.4745760956, 3.8636745985, 2.6946151520])


def test_ddim_uniform_may_have_more_levels_than_steps():
    """Kept (register: Q17)."""
    sigmas = calculate_sigmas_all("euler", TABLE, "ddim_uniform", 30)
    assert len(sigmas) == 32
    assert sigmas[:3].tolist() == pytest.approx([13.926, 11.477, 9.5436], rel=5e-5)
    assert sigmas[-4:].tolist() == pytest.approx([0.26765, 0.18217, 0.041314, 0], rel=5e-5)
    cut = slice_sigmas(sigmas, last=30)
    assert len(cut) == 31 and cut[-1] == 0 and cut[-2] == sigmas[29]
    assert sigmas[30] > 0  # the list itself is not changed


def test_lcm_and_tcd_use_the_distilled_table():
    for scheduler in ("lcm", "tcd"):
        prediction, schedule = sampling_for(scheduler, "epsilon")
        sigmas = calculate_sigmas_all("lcm", prediction.table, schedule, 8)
        expected = [14.615, 7.3918, 4.1708, 2.5629, 1.6679, 1.1139, 0.73252, 0.43672, 0]
        assert sigmas.tolist() == pytest.approx(expected, rel=5e-5)


def test_edm_uses_its_own_range():
    prediction, schedule = sampling_for("edm_playground_v2.5", "epsilon")
    sigmas = calculate_sigmas_all("euler", prediction.table, schedule, 10)
    expected = [120, 62.955, 30.932, 14.025, 5.7485, 2.068, 0.62435, 0.14708, 0.023733, 0.002, 0]
    assert sigmas.tolist() == pytest.approx(expected, rel=5e-5)


def test_karras_agrees_with_k_diffusion(k_sampling):
    torch.testing.assert_close(karras_sigmas(17, 0.03, 14.6), k_sampling.get_sigmas_karras(17, 0.03, 14.6))


@pytest.mark.parametrize("sampler", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_some_samplers_take_one_step_more_and_skip_the_smallest_level(sampler):
    longer = calculate_sigmas_all("euler", TABLE, "karras", 11)
    sigmas = calculate_sigmas_all(sampler, TABLE, "karras", 10)
    assert sigmas.tolist() == [*longer.tolist()[:-2], 0]
    partial = calculate_sigmas(sampler, TABLE, "karras", 10, 0.5)
    assert partial.tolist() == calculate_sigmas_all(sampler, TABLE, "karras", 20)[-11:].tolist()


@pytest.mark.parametrize("scheduler", NAMES)
@pytest.mark.parametrize("table", [TABLE, distilled_table(), EDMTable(), discrete_table(zero_terminal_snr=True)])
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", ["euler", "dpm_2"])
def test_every_schedule_descends_from_noise_to_0_in_as_many_steps(scheduler, table, steps, sampler):
    sigmas = slice_sigmas(calculate_sigmas_all(sampler, table, scheduler, steps), last=steps)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all() and sigmas.isfinite().all()


@pytest.mark.parametrize("scheduler", sorted(set(NAMES) - {"turbo"}))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_hundred_steps_are_possible(scheduler, sampler):
    assert len(slice_sigmas(calculate_sigmas_all(sampler, TABLE, scheduler, 200), last=200)) == 201


def test_partial_denoising_keeps_the_end_of_a_longer_schedule():
    whole = calculate_sigmas_all("euler", TABLE, "karras", 54)  # trunc(30 / 0.55)
    assert calculate_sigmas("euler", TABLE, "karras", 30, 0.55).tolist() == whole[-31:].tolist()
    full = calculate_sigmas_all("euler", TABLE, "karras", 30).tolist()
    assert calculate_sigmas("euler", TABLE, "karras", 30, 1.0).tolist() == full
    assert calculate_sigmas("euler", TABLE, "karras", 30, 0.99995).tolist() == full


def test_slices_of_a_run_for_a_refiner():
    sigmas = calculate_sigmas_all("euler", TABLE, "karras", 10)
    first, second = slice_sigmas(sigmas, last=6, to_zero=False), slice_sigmas(sigmas, start=6)
    assert first.tolist() == sigmas[:7].tolist() and second.tolist() == sigmas[6:].tolist()


def test_turbo_says_how_many_steps_it_has():
    """And is no other schedule in silence (register: Q01)."""
    assert len(calculate_sigmas_all("euler", TABLE, "turbo", 10)) == 11
    with pytest.raises(BadSetting, match=r"turbo has at most 10 steps.*11 are needed"):
        calculate_sigmas_all("euler", TABLE, "turbo", 11)
    with pytest.raises(BadSetting, match="turbo has at most 9 steps with the sampler dpm_2"):
        calculate_sigmas_all("dpm_2", TABLE, "turbo", 10)
    with pytest.raises(BadSetting, match="16 are needed"):
        calculate_sigmas("euler", TABLE, "turbo", 8, 0.5)


@pytest.mark.parametrize("denoise", [0.0, -0.5, 1.5, float("nan")])
def test_a_denoising_strength_outside_its_range_is_named(denoise):
    """A strength of 0 divides by zero in the reference (register: Q36)."""
    with pytest.raises(BadSetting, match=f"denoising strength is {denoise}"):
        calculate_sigmas("euler", TABLE, "karras", 30, denoise)


def test_what_cannot_be_made_is_named():
    with pytest.raises(BadSetting, match="steps is 0"):
        calculate_sigmas_all("euler", TABLE, "karras", 0)
    with pytest.raises(BadSetting, match=r"no scheduler called 'kerras'.*karras"):
        calculate_sigmas_all("euler", TABLE, "kerras", 30)
    with pytest.raises(BadSetting, match="too small for 30 steps"):
        calculate_sigmas("euler", TABLE, "karras", 30, 1e-6)
    with pytest.raises(BadSetting, match="cannot tell 2000 steps apart"):
        calculate_sigmas("euler", TABLE, "simple", 200, 0.1)


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2"])
def test_q41_foreseen_levels_keep_unipcs_smallest_one(sampler):
    foreseen = calculate_sigmas_all(sampler, TABLE, "karras", 10, foreseen=True)
    assert foreseen.tolist() == calculate_sigmas_all("euler", TABLE, "karras", 10).tolist()
    second_order = calculate_sigmas_all("dpm_2", TABLE, "karras", 10, foreseen=True)
    assert second_order.tolist() == calculate_sigmas_all("dpm_2", TABLE, "karras", 10).tolist()


def test_q01_foreseen_levels_of_turbo_are_at_most_ten():
    foreseen = calculate_sigmas("euler", TABLE, "turbo", 30, foreseen=True)
    assert foreseen.tolist() == calculate_sigmas_all("euler", TABLE, "turbo", 10).tolist()
