"""A picture's sampling by two models: who is asked when, and each swap composed once more by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from core.diffusion import Job, Stage, diffuse
from core.errors import BadSetting
from core.goals.text import Start, start_from_text
from core.models.latent_format import PLAYGROUND, SD15, SDXL, LatentSpace
from core.sampling.noise import noise_for
from core.sampling.prediction import sampling_for
from core.sampling.schedules import calculate_sigmas
from core.sampling.tables import discrete_table
from core.settings import MAX_SEED, SAMPLERS, Settings

SEED = 11
SHAPE = (1, 4, 8, 8)
ONE_EVALUATION = (
    "euler", "euler_ancestral", "lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu", "ddpm", "lcm", "tcd", "ddim", "uni_pc", "uni_pc_bh2",
)  # fmt: skip
TWO_EVALUATIONS = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu", "restart")


def settings(**values):
    given = {"width": 64, "height": 64, "steps": 10, "sampler": "euler", "refiner_switch": 0.6, **values}
    return Settings(**given)


class Spy:
    """The exact denoiser of Gaussian data of the given spread, about `centre`; counts who asked at which level."""

    def __init__(self, asked, name, spread, centre):
        self.asked, self.name, self.spread, self.centre = asked, name, spread, centre

    def __call__(self, x, sigma):
        self.asked.append((self.name, float(sigma)))
        return self.centre + (x - self.centre) * self.spread**2 / (self.spread**2 + sigma**2)


def job(s, *, convert=None, strength=1.0, latent_format=SDXL, own_table=None, **values):
    """A job of two spies; the list says who was asked, in order."""
    asked = []
    stages = []
    for name, spread, centre in (("base", 0.8, 0.3), ("refiner", 0.4, -0.2)):
        prediction, scheduler = sampling_for(s.scheduler, "epsilon", strict=s.strict_compatibility)
        own = name == "refiner"
        space = LatentSpace(None, latent_format if own else SDXL, None)
        spy = Spy(asked, name, spread, centre)
        parts = {"denoiser": lambda spy=spy: spy, "prediction": prediction, "scheduler": scheduler, "space": space}
        stages.append(Stage(**parts, own_table=own_table))
    start = replace(start_from_text(s), strength=strength)
    base, refiner = stages
    made = Job(
        settings=s, seed=SEED, start=start, device=torch.device("cpu"), base=base, refiner=refiner, convert=convert
    )
    return replace(made, **values), asked


def who(asked):
    return [name for name, _ in asked]


@pytest.mark.parametrize("sampler", ONE_EVALUATION)
def test_joint_base_makes_the_evaluations_up_to_and_with_the_switch_step(sampler):
    """Q06: one more than the base model's share; kept."""
    made, asked = job(settings(sampler=sampler))
    steps = list(diffuse(made))
    assert who(asked) == ["base"] * 7 + ["refiner"] * 3
    assert [step.index for step in steps] == list(range(10)) and {step.total for step in steps} == {10}


@pytest.mark.parametrize("sampler", TWO_EVALUATIONS)
def test_joint_the_second_half_of_the_switch_step_is_the_refiners(sampler):
    made, asked = job(settings(sampler=sampler))
    list(diffuse(made))
    count = len(asked)
    assert who(asked) == ["base"] * 13 + ["refiner"] * (count - 13)
    assert count >= 19


def test_joint_three_evaluations_a_step_are_counted_by_steps_too():
    made, asked = job(settings(sampler="heunpp2"))
    list(diffuse(made))
    assert who(asked).count("base") == 3 * 6 + 1 and who(asked).index("refiner") == 19


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_joint_samplers_with_steps_of_their_own_switch_at_the_switch_steps_level(sampler):
    made, asked = job(settings(sampler=sampler))
    list(diffuse(made))
    level = float(calculate_sigmas(sampler, made.base.prediction.table, "karras", 10)[6])
    by_base = [sigma for name, sigma in asked if name == "base"]
    assert min(by_base[:-1]) > level >= by_base[-1] * (1 - 1e-5)
    assert who(asked) == ["base"] * len(by_base) + ["refiner"] * (len(asked) - len(by_base))
    assert "refiner" in who(asked)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
@pytest.mark.parametrize("steps", [9, 10, 30])
def test_dpm_fasts_steps_are_counted_as_it_makes_them(swap, steps):
    """Of third order mostly: a third of the steps that were asked for, each of several evaluations."""
    for alone in (True, False):
        made, _ = job(settings(sampler="dpm_fast", steps=steps, refiner_swap=swap))
        told = list(diffuse(replace(made, refiner=None) if alone else made))
        assert [step.index for step in told] == list(range(len(told)))
        assert {step.total for step in told} == {len(told)} and len(told) <= steps // 3 + 2


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_separate_a_base_model_without_any_step_leaves_all_to_the_refiner(sampler):
    made, asked = job(settings(sampler=sampler, steps=4, refiner_switch=0.1, refiner_swap="separate"))
    *_, last = diffuse(made)
    assert torch.isfinite(last.x).all() and set(who(asked)) == {"refiner"}


def test_every_sampler_is_in_one_of_these_tests():
    assert {*ONE_EVALUATION, *TWO_EVALUATIONS, "heunpp2", "dpm_fast", "dpm_adaptive"} == {*SAMPLERS}


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_3m_sde", "uni_pc", "lms", "euler_ancestral"])
def test_joint_history_and_noise_go_on(sampler):
    """The same as one run with a denoiser that changes its mind by the level, which a sampler cannot see."""
    made, asked = job(settings(sampler=sampler))
    *_, last = diffuse(made)
    levels = [sigma for name, sigma in asked if name == "refiner"]
    alone, _ = job(settings(sampler=sampler))
    base, refiner = alone.base.denoiser(), alone.refiner.denoiser()

    def either(x, sigma):
        return (refiner if float(sigma) in levels else base)(x, sigma)

    *_, expected = diffuse(replace(alone, base=replace(alone.base, denoiser=lambda: either), refiner=None))
    torch.testing.assert_close(last.x, expected.x, rtol=0, atol=0)


def test_separate_history_is_lost_at_the_border():
    finals = []
    for swap in ("joint", "separate"):
        made, _ = job(settings(sampler="dpmpp_2m", refiner_swap=swap))
        same = replace(made, refiner=replace(made.refiner, denoiser=made.base.denoiser))
        *_, last = diffuse(same)
        finals.append(last.x)
    alone, _ = job(settings(sampler="dpmpp_2m"), refiner=None)
    *_, whole = diffuse(alone)
    torch.testing.assert_close(finals[0], whole.x, rtol=0, atol=0)
    assert not torch.allclose(finals[1], whole.x, atol=1e-4)


@pytest.mark.parametrize("sampler", ONE_EVALUATION)
def test_separate_base_makes_the_steps_before_the_switch_step_alone(sampler):
    made, asked = job(settings(sampler=sampler, refiner_swap="separate"))
    steps = list(diffuse(made))
    assert who(asked) == ["base"] * 6 + ["refiner"] * 4
    assert [step.index for step in steps] == list(range(10)) and {step.total for step in steps} == {10}


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("lcm", "tcd")])
def test_separate_the_first_run_leaves_the_noise_that_the_second_begins_with(sampler):
    """Between the runs x has the level of the switch step; for Gaussian data the spread it must have then is known.

    lcm and tcd narrow the data's spread themselves, whatever the run, and so are not asked.
    """
    steps = 40
    wide = Start(latent=torch.zeros(1, 4, 64, 64))
    made, _ = job(settings(sampler=sampler, steps=steps, refiner_swap="separate"), start=wide)
    last = [step for step in diffuse(made) if step.space is made.base.space][-1]
    sigma = float(calculate_sigmas(sampler, made.base.prediction.table, "karras", steps)[round(0.6 * steps)])
    expected = (0.8**2 + sigma**2) ** 0.5
    assert float((last.x - 0.3).square().mean().sqrt()) == pytest.approx(expected, rel=0.12)


def test_separate_equals_two_lists_of_levels_walked_by_hand():
    made, _ = job(settings(refiner_swap="separate"))
    *_, last = diffuse(made)
    sigmas = calculate_sigmas("euler", made.base.prediction.table, "karras", 10).double()
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(SEED)).double() * (1 + sigmas[0] ** 2).sqrt()
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x0 = (made.base if i < 6 else made.refiner).denoiser()(x, sigma)
        x = x0 + (x - x0) * after / sigma
    torch.testing.assert_close(last.x.double(), x, rtol=1e-4, atol=1e-5)


def by_hand(made, convert, seed=SEED + 1):
    """The vae swap of Euler's sampler, in double precision."""
    sigmas = calculate_sigmas("euler", made.base.prediction.table, "karras", 10).double()
    first = torch.cat([sigmas[:6], torch.zeros(1)])
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(SEED)).double() * (1 + sigmas[0] ** 2).sqrt()
    for sigma, after in pairwise(first):
        x0 = made.base.denoiser()(x, sigma)
        epsilon = (x - x0) / sigma
        x = x0 + epsilon * after
    latent = convert(x / 0.13025) * made.refiner.space.format.scale[0]
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).double()
    noise = noise - noise.mean(1, keepdim=True) + epsilon.mean(1, keepdim=True)
    second = 1.4 * sigmas[6:]
    x = latent + noise * second[0]
    for sigma, after in pairwise(second):
        x0 = made.refiner.denoiser()(x, sigma)
        x = x0 + (x - x0) * after / sigma
    return x


@pytest.mark.parametrize("own_vae", [True, False])
def test_vae_swap_equals_the_same_composed_by_hand(own_vae):
    def convert(raw):
        return 0.7 * raw.flip(1) + 0.1

    chosen = {"convert": convert, "latent_format": SD15} if own_vae else {}
    made, asked = job(settings(refiner_swap="joint" if own_vae else "vae"), **chosen)
    steps = list(diffuse(made))
    assert who(asked) == ["base"] * 6 + ["refiner"] * 4
    assert [step.space for step in steps] == [made.base.space] * 6 + [made.refiner.space] * 4
    assert [step.index for step in steps] == list(range(10)) and {step.total for step in steps} == {10}
    expected = by_hand(made, convert if own_vae else lambda raw: raw)
    torch.testing.assert_close(steps[-1].x.double(), expected, rtol=1e-4, atol=1e-5)


def test_vae_swap_the_second_runs_levels_are_1_4_times_the_rest():
    made, asked = job(settings(refiner_swap="vae"))
    list(diffuse(made))
    sigmas = calculate_sigmas("euler", made.base.prediction.table, "karras", 10)
    expected = [("base", s) for s in sigmas[:6].tolist()] + [("refiner", s) for s in (1.4 * sigmas[6:-1]).tolist()]
    assert who(asked) == who(expected)
    torch.testing.assert_close(*(torch.tensor([sigma for _, sigma in rows]) for rows in (asked, expected)))


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2", "dpm_2"])
def test_vae_swap_the_second_run_leaves_out_the_smallest_level_where_the_sampler_does(sampler):
    """Q41: there UniPC's second run had a step more than its first."""
    made, asked = job(settings(sampler=sampler, refiner_swap="vae", scheduler="normal"))
    steps = list(diffuse(made))
    assert len(steps) == 10
    smallest = min(sigma for name, sigma in asked if name == "refiner")
    assert smallest > 1.4 * made.base.prediction.table.sigma_min * 1.01


@pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
def test_vae_swap_a_sampler_that_stops_above_zero_hands_over_a_clean_latent(sampler):
    """Of Gaussian data of spread 0.8 about 0.3 a clean latent has that spread, a noisy one a wider one."""
    seen = []
    chosen = {"convert": lambda raw: seen.append(raw) or raw, "latent_format": SD15}
    wide = Start(latent=torch.zeros(1, 4, 64, 64))
    made, _ = job(settings(sampler=sampler, steps=40, refiner_switch=0.3), start=wide, **chosen)
    list(diffuse(made))
    clean = seen[0] * 0.13025
    assert float((clean - 0.3).square().mean().sqrt()) < 0.85


@pytest.mark.parametrize(("sampler", "seed"), [("dpmpp_2m_sde", SEED), ("euler_ancestral", SEED + 1)])
def test_vae_swap_a_brownian_path_is_the_first_runs_and_other_noise_the_second_seeds(sampler, seed):
    """The first stochastic step of the second run, computed from the noise that each source must give."""
    made, _ = job(settings(sampler=sampler, refiner_swap="vae"))
    before, step = list(diffuse(made))[5:7]
    sigmas = calculate_sigmas(sampler, made.base.prediction.table, "karras", 10)
    _, source = noise_for(sampler, seed, SHAPE, sigmas)
    initial, _ = noise_for(sampler, SEED + 1, SHAPE, sigmas)
    sigma, after = 1.4 * sigmas[6:8]
    record = (list(diffuse(made))[4].x - before.x0) / sigmas[5]
    x = before.x + (initial - initial.mean(1, keepdim=True) + record.mean(1, keepdim=True)) * sigma
    noise = source(sigma, after)
    if sampler == "euler_ancestral":
        up = (after**2 * (sigma**2 - after**2) / sigma**2).sqrt()
        expected = step.x0 + (x - step.x0) / sigma * (after**2 - up**2).sqrt() + noise * up
    else:
        decay = (after / sigma) ** 2
        expected = decay * x + (1 - decay) * step.x0 + noise * after * (1 - decay).sqrt()
    torch.testing.assert_close(step.x, expected, rtol=1e-4, atol=1e-5)


def test_vae_swap_at_the_largest_seed_wraps():
    made, _ = job(settings(refiner_swap="vae"), seed=MAX_SEED)
    *_, last = diffuse(made)
    assert torch.isfinite(last.x).all()


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
def test_a_switch_at_the_last_step_is_the_base_model_alone(swap):
    made, asked = job(settings(refiner_swap=swap, refiner_switch=1.0))
    *_, last = diffuse(made)
    *_, alone = diffuse(job(settings(), refiner=None)[0])
    assert "refiner" not in who(asked)
    torch.testing.assert_close(last.x, alone.x, rtol=0, atol=0)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
def test_a_switch_at_step_0_works(swap):
    made, asked = job(settings(refiner_swap=swap, refiner_switch=0.1, steps=3))
    assert made.settings.switch_step == 0
    *_, last = diffuse(made)
    assert torch.isfinite(last.x).all()
    assert who(asked).count("base") == (0 if swap == "separate" else 1)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
def test_a_small_change_of_a_picture_is_made_by_a_refiner_with_its_own_vae_alone(swap):
    chosen = {"convert": lambda raw: raw, "latent_format": SD15}
    for strength, name in ((0.1, "refiner"), (0.6, "base")):
        made, asked = job(settings(refiner_swap=swap), strength=strength, **chosen)
        steps = list(diffuse(made))
        assert set(who(asked)) == {name} and len(steps) == 10
        space = (made.refiner if name == "refiner" else made.base).space
        assert {step.space for step in steps} == {space}


@pytest.mark.parametrize("swap", ["joint", "separate"])
def test_latents_of_another_scale_cannot_be_gone_on_with(swap):
    made, _ = job(settings(refiner_swap=swap), latent_format=PLAYGROUND)
    with pytest.raises(BadSetting, match="swap to vae"):
        list(diffuse(made))
    made, _ = job(settings(refiner_swap="vae"), latent_format=PLAYGROUND)
    assert len(list(diffuse(made))) == 10


def test_the_starts_wrap_goes_round_both_models_and_its_twin_round_a_refiner_with_its_own_vae():
    def marked(name):
        return lambda denoise: lambda x, sigma: seen.append(name) or denoise(x, sigma)

    cases = [("joint", {}, 10, 0), ("separate", {}, 10, 0), ("vae", {}, 10, 0)]
    cases += [("joint", {"convert": lambda raw: raw, "latent_format": SD15}, 6, 4)]
    for swap, chosen, plain, twin in cases:
        seen = []
        made, _ = job(settings(refiner_swap=swap), **chosen)
        start = replace(made.start, wrap=marked("plain"), wrap_swapped=marked("twin"))
        list(diffuse(replace(made, start=start)))
        assert (seen.count("plain"), seen.count("twin")) == (plain, twin)


@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
def test_nothing_is_computed_that_is_not_asked_for(swap):
    made, asked = job(settings(refiner_swap=swap))
    run = diffuse(made)
    assert not asked
    for _ in range(8):
        next(run)
    assert len(asked) == 8


def strict(**values):
    return settings(strict_compatibility=True, **values)


def levels_of(asked, name="base"):
    return [sigma for who, sigma in asked if who == name]


NORMAL = [14.615, 7.8399, 4.6092, 2.9183, 1.9502, 1.3449, 0.93236, 0.62498, 0.36866, 0.029167]
TURBO = [14.615, 8.3028, 5.0878, 3.3211, 2.2765, 1.6129, 1.1606, 0.82986, 0.56928, 0.34167]
ALIGNED = [14.615, 6.3184, 3.7682, 2.1811, 1.3405, 0.86207, 0.55507, 0.37985, 0.23324, 0.11142]


@pytest.mark.parametrize(("scheduler", "real"), [("turbo", TURBO), ("align_your_steps", ALIGNED)])
def test_q01_strict_schedulers_that_the_references_driver_does_not_know_sample_with_normal(scheduler, real):
    for s, expected in ((strict(scheduler=scheduler), NORMAL), (settings(scheduler=scheduler), real)):
        made, asked = job(s, refiner=None)
        list(diffuse(made))
        assert levels_of(asked) == pytest.approx(expected, rel=5e-5)


@pytest.mark.parametrize("swap", ["joint", "separate"])
def test_q01_strict_is_normal_in_both_parts_of_a_run(swap):
    made, asked = job(strict(scheduler="turbo", refiner_swap=swap))
    list(diffuse(made))
    assert levels_of(asked) + levels_of(asked, "refiner") == pytest.approx(NORMAL, rel=5e-5)


@pytest.mark.parametrize(("scheduler", "real"), [("turbo", TURBO), ("align_your_steps", ALIGNED)])
def test_q01_strict_the_second_run_of_a_vae_swap_has_the_real_schedule(scheduler, real):
    made, asked = job(strict(scheduler=scheduler, refiner_swap="vae"))
    list(diffuse(made))
    assert levels_of(asked) == pytest.approx(NORMAL[:6], rel=5e-5)
    assert levels_of(asked, "refiner") == pytest.approx([1.4 * sigma for sigma in real[6:]], rel=5e-5)


def test_q01_strict_a_refiner_for_which_turbo_has_no_level_left_is_told():
    made, _ = job(strict(scheduler="turbo", refiner_swap="vae", steps=30, refiner_switch=0.5))
    with pytest.raises(BadSetting, match=r"turbo has no noise levels left .* after step 15"):
        list(diffuse(made))


def first_step(made, sigmas, source):
    """A step of dpmpp_2m_sde from `sigmas[0]` to `sigmas[1]`, from the specification's formula."""
    initial, _ = noise_for("dpmpp_2m_sde", SEED, SHAPE, sigmas)
    sigma, after = sigmas[:2]
    x = initial * (1 + sigma**2).sqrt()
    decay = (after / sigma) ** 2  # e^(-2h)
    noise = source(sigma, after) * after * (1 - decay).sqrt()
    return decay * x + (1 - decay) * made.base.denoiser()(x, sigma) + noise


@pytest.mark.parametrize(("scheduler", "real"), [("turbo", TURBO), ("align_your_steps", ALIGNED)])
def test_q01_strict_the_brownian_path_spans_the_real_schedule(scheduler, real):
    made, _ = job(strict(scheduler=scheduler, sampler="dpmpp_2m_sde"), refiner=None)
    table = made.base.prediction.table
    spanned = calculate_sigmas("dpmpp_2m_sde", table, scheduler, 10)
    assert spanned[:-1].tolist() == pytest.approx(real, rel=5e-5)
    _, source = noise_for("dpmpp_2m_sde", SEED, SHAPE, spanned)
    expected = first_step(made, calculate_sigmas("dpmpp_2m_sde", table, "normal", 10), source)
    torch.testing.assert_close(next(diffuse(made)).x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["edm_playground_v2.5", "lcm", "tcd"])
def test_q05a_strict_the_brownian_path_spans_the_levels_of_the_checkpoints_own_table(scheduler):
    made, _ = job(strict(scheduler=scheduler, sampler="dpmpp_2m_sde"), refiner=None, own_table=discrete_table())
    schedule = made.base.scheduler
    _, source = noise_for("dpmpp_2m_sde", SEED, SHAPE, calculate_sigmas("dpmpp_2m_sde", discrete_table(), schedule, 10))
    sigmas = calculate_sigmas("dpmpp_2m_sde", made.base.prediction.table, schedule, 10)
    expected = first_step(made, sigmas, source)
    torch.testing.assert_close(next(diffuse(made)).x, expected, rtol=1e-4, atol=1e-4)


def test_q05a_strict_steps_outside_the_path_get_no_noise():
    """EDM's first steps, from 120 to 62.955 and on, lie above the path's end at 14.615."""
    made, _ = job(
        strict(scheduler="edm_playground_v2.5", sampler="dpmpp_2m_sde"), refiner=None, own_table=discrete_table()
    )
    sigmas = calculate_sigmas("dpmpp_2m_sde", made.base.prediction.table, "karras", 10)
    expected = first_step(made, sigmas, lambda sigma, after: torch.zeros(SHAPE))
    torch.testing.assert_close(next(diffuse(made)).x, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheduler", ["lcm", "edm_playground_v2.5"])
def test_q05a_strict_the_second_run_of_a_vae_swap_has_the_levels_of_the_refiners_own_table(scheduler):
    made, asked = job(strict(scheduler=scheduler, refiner_swap="vae"), own_table=discrete_table())
    list(diffuse(made))
    foreseen = calculate_sigmas("euler", discrete_table(), made.refiner.scheduler, 10)
    assert levels_of(asked, "refiner") == pytest.approx((1.4 * foreseen[6:-1]).tolist())


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2"])
def test_q41_strict_unipcs_second_run_keeps_the_smallest_level(sampler):
    made, asked = job(strict(sampler=sampler, refiner_swap="vae", scheduler="normal"))
    list(diffuse(made))
    whole = calculate_sigmas("euler", made.base.prediction.table, "normal", 10)
    assert min(levels_of(asked, "refiner")) == pytest.approx(1.4 * float(whole[-2]))
    first = calculate_sigmas(sampler, made.base.prediction.table, "normal", 10)
    assert levels_of(asked) == pytest.approx(first[:6].tolist())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("swap", ["joint", "separate", "vae"])
def test_strict_changes_nothing_where_the_reference_makes_no_mistake(sampler, swap):
    if swap == "vae" and sampler.startswith("uni_pc"):
        swap = "joint"
    *_, plain = diffuse(job(settings(sampler=sampler, refiner_swap=swap))[0])
    *_, same = diffuse(job(strict(sampler=sampler, refiner_swap=swap), own_table=discrete_table())[0])
    assert torch.equal(plain.x, same.x)
