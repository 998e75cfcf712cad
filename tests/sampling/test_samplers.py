"""Samplers against exact solutions for Gaussian data, against k-diffusion and diffusers, and against worked examples."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from core.errors import BadSetting
from core.sampling.noise import noise_for
from core.sampling.samplers import SAMPLERS
from core.sampling.samplers.ode import multistep_weights
from core.sampling.samplers.stochastic import restart_segments
from core.sampling.schedules import calculate_sigmas_all, karras_sigmas
from core.sampling.tables import EDMTable, discrete_table, distilled_table
from core.settings import SAMPLERS as NAMES

TABLE = discrete_table()
SPREAD = 0.5  # of the Gaussian data
DETERMINISTIC = (
    "euler", "ddim", "heun", "heunpp2", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "uni_pc", "uni_pc_bh2",
)  # fmt: skip
STOCHASTIC = tuple(sorted(set(NAMES) - set(DETERMINISTIC)))


def gaussian_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The best guess of x0 when the data is N(0, SPREAD^2)."""
    return x * (SPREAD**2 / (SPREAD**2 + sigma**2))


def curved_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """Something that is not linear in x and changes with sigma."""
    sigma = sigma.reshape(-1, *(1,) * (x.ndim - 1))
    return gaussian_denoiser(x, sigma) + 0.2 * torch.sin(x) / (1 + sigma)


def start_at(sigma_max: float, *shape: int) -> Tensor:
    return sigma_max * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def no_noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def noise_in_order(*shape: int):
    generator = torch.Generator().manual_seed(1)
    return lambda sigma, sigma_next: torch.randn(shape, dtype=torch.float64, generator=generator)


def run(name, denoise, x, sigmas, noise=no_noise, table=TABLE):
    return list(SAMPLERS[name](denoise, x, sigmas, noise=noise, table=table))


def test_every_sampler_of_the_settings_is_there():
    assert set(SAMPLERS) == set(NAMES)


# -- exact solutions


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_sampler_reaches_the_exact_solution_when_the_data_is_gaussian(name):
    sigma_max = 14.6
    start = start_at(sigma_max, 64)
    sigmas = karras_sigmas(80, 0.002, sigma_max, torch.float64)
    last = run(name, gaussian_denoiser, start, sigmas)[-1]
    exact = start * SPREAD / math.sqrt(SPREAD**2 + sigma_max**2)
    torch.testing.assert_close(last.x, exact, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("name", "order"),  # multistep samplers begin with one step of lower order, which costs them the rest
    [
        ("euler", 1),
        ("heun", 2),
        ("dpm_2", 2),
        ("dpmpp_2m", 2),
        ("lms", 2),
        ("uni_pc", 2),
        ("uni_pc_bh2", 2),
        ("dpm_fast", 3),
    ],
)
def test_half_the_step_divides_the_error_by_two_to_the_order(name, order):
    start = start_at(5.0, 16)

    def error(steps: int) -> float:
        sigmas = torch.linspace(math.log(5.0), math.log(1.0), steps + 1, dtype=torch.float64).exp()
        exact = start * math.sqrt((SPREAD**2 + 1) / (SPREAD**2 + 25))
        return float((run(name, gaussian_denoiser, start, sigmas)[-1].x - exact).abs().max())

    assert math.log2(error(62) / error(122)) > order - 0.35


@pytest.mark.parametrize("name", sorted(set(STOCHASTIC) - {"lcm", "tcd"}))
def test_noise_keeps_the_spread_of_gaussian_data(name):
    first_order = name in ("euler_ancestral", "ddpm")
    sigmas = calculate_sigmas_all(name, TABLE, "karras", 200 if first_order else 45)
    initial, noise = noise_for(name, 2, (20_000,), sigmas)
    sigmas = sigmas.double()
    x = initial.double() * (SPREAD**2 + sigmas[0] ** 2).sqrt()
    last = run(name, gaussian_denoiser, x, sigmas, noise)[-1].x
    assert last.mean().item() == pytest.approx(0, abs=0.02)
    assert last.std().item() == pytest.approx(SPREAD, rel=0.04)


def test_lcm_gives_gaussian_data_the_spread_that_its_recursion_says():
    sigmas = calculate_sigmas_all("lcm", TABLE, "karras", 8)
    initial, noise = noise_for("lcm", 2, (20_000,), sigmas)
    variance = SPREAD**2 + float(sigmas[0]) ** 2
    x = initial.double() * variance**0.5
    for sigma, sigma_next in pairwise(sigmas.tolist()):  # each step shrinks x to its guess and adds sigma_next of noise
        variance = variance * (SPREAD**2 / (SPREAD**2 + sigma**2)) ** 2 + sigma_next**2
    last = run("lcm", gaussian_denoiser, x, sigmas.double(), noise)[-1].x
    assert last.std().item() == pytest.approx(variance**0.5, rel=0.02)


def test_tcd_gives_gaussian_data_the_spread_that_its_recursion_says():
    sigmas = calculate_sigmas_all("tcd", TABLE, "sgm_uniform", 8)
    initial, noise = noise_for("tcd", 2, (20_000,), sigmas)
    variance = SPREAD**2 + float(sigmas[0]) ** 2
    x = initial.double() * variance**0.5
    for sigma, sigma_next in pairwise(sigmas.tolist()):  # Euler to 0.7 times the next timestep, noise back up
        timestep = int((TABLE.sigmas - sigma_next).abs().argmin()) if sigma_next else 0
        below = float(TABLE.sigmas[math.floor(0.7 * timestep + 1e-9)])
        slope = 1 / (SPREAD**2 + sigma**2)  # of (x - x0) / sigma / x, over sigma
        variance = variance * (1 + slope * sigma * (below - sigma)) ** 2
        variance = variance + sigma_next**2 - below**2 if sigma_next else variance / (1 + below**2)
    last = run("tcd", gaussian_denoiser, x, sigmas.double(), noise)[-1].x
    assert last.std().item() == pytest.approx(variance**0.5, rel=0.02)


def test_ddpm_is_euler_ancestral_in_other_words():
    sigmas = calculate_sigmas_all("ddpm", TABLE, "karras", 12).double()
    start = start_at(14.6, 8)
    one, other = (
        run(name, curved_denoiser, start, sigmas, noise_in_order(8))[-1].x for name in ("ddpm", "euler_ancestral")
    )
    torch.testing.assert_close(one, other)


# -- what all share


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_counted_from_0_and_work_is_done_only_when_asked_for(name):
    calls = []

    def counting(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.ndim == 0
        calls.append(float(sigma))
        return gaussian_denoiser(x, sigma)

    sigmas = calculate_sigmas_all("euler", TABLE, "karras", 12).double()
    steps = SAMPLERS[name](counting, start_at(14.6, 8), sigmas, noise=noise_in_order(8), table=TABLE)
    assert not calls
    first = next(steps)
    assert first.index == 0 and 1 <= len(calls) <= 4 and calls[0] == pytest.approx(float(sigmas[0]))
    indices = [step.index for step in steps]
    if name == "dpm_fast":
        assert indices == [1, 2, 3, 4] and len(calls) == 12
    elif name == "dpm_adaptive":
        assert indices == list(range(1, len(indices) + 1))
    else:
        assert indices == list(range(1, 12))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_give_finite_latents_in_the_dtype_they_came_in(name, steps):
    sigmas = calculate_sigmas_all(name, TABLE, "karras", steps)
    initial, noise = noise_for(name, 3, (1, 4, 2, 2), sigmas)
    done = run(name, gaussian_denoiser, initial * sigmas[0], sigmas, noise)
    assert done
    for step in done:
        assert step.x.dtype == step.x0.dtype == torch.float32
        assert step.x.isfinite().all() and step.x0.isfinite().all()
    left = {"dpm_fast": 0.5, "dpm_adaptive": 0.1}.get(name, 0.02)  # these leave the noise of the last level
    if steps == 1:
        torch.testing.assert_close(done[-1].x, done[-1].x0, rtol=0, atol=max(left, 0.2 if name == "tcd" else 0))


@pytest.mark.parametrize("name", NAMES)
def test_sampler_leaves_the_latent_it_was_given_alone(name):
    sigmas = calculate_sigmas_all("euler", TABLE, "karras", 6).double()
    start = start_at(14.6, 8)
    copy = start.clone()
    run(name, gaussian_denoiser, start, sigmas, noise_in_order(8))
    assert torch.equal(start, copy)


# -- k-diffusion


@pytest.mark.parametrize(
    "name",
    [
        "euler", "heun", "dpm_2", "lms", "dpmpp_2m", "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral",
        "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde",
    ],
)  # fmt: skip
def test_sampler_agrees_with_k_diffusion(k_sampling, name):
    shape = (1, 4, 3, 3)
    sigmas = calculate_sigmas_all("euler", TABLE, "karras", 14).double()
    start = start_at(14.6, *shape)
    chance = {} if name in DETERMINISTIC else {"noise_sampler": noise_in_order(*shape)}
    guesses = []
    expected = getattr(k_sampling, f"sample_{name}")(
        curved_denoiser, start, sigmas, disable=True, callback=lambda info: guesses.append(info["denoised"]), **chance
    )
    steps = run(name, curved_denoiser, start, sigmas, noise_in_order(*shape) if chance else no_noise)
    torch.testing.assert_close(steps[-1].x, expected, rtol=1e-9 if name != "lms" else 1e-4, atol=1e-9)
    assert len(steps) == len(guesses)
    torch.testing.assert_close(torch.stack([s.x0 for s in steps]), torch.stack(guesses), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("count", [2, 4, 5, 6, 14])
def test_dpm_fast_agrees_with_k_diffusion(k_sampling, count):
    sigmas = karras_sigmas(count, 0.03, 14.6, torch.float64)
    start = start_at(14.6, 1, 4, 3, 3)
    expected = k_sampling.sample_dpm_fast(curved_denoiser, start, 0.03, 14.6, count, disable=True)
    steps = run("dpm_fast", curved_denoiser, start, sigmas)
    torch.testing.assert_close(steps[-1].x, expected, rtol=1e-4, atol=1e-5)  # the peer's levels are float32


def test_dpm_adaptive_agrees_with_k_diffusion(k_sampling):
    sigmas = karras_sigmas(10, 0.03, 14.6, torch.float64)
    start = start_at(14.6, 1, 4, 3, 3)
    solver = k_sampling.DPMSolver(curved_denoiser)
    expected, info = solver.dpm_solver_adaptive(start, -sigmas[0].log(), -sigmas[-2].log())
    steps = run("dpm_adaptive", curved_denoiser, start, sigmas)
    assert len(steps) == info["n_accept"] > 5
    torch.testing.assert_close(steps[-1].x, expected, rtol=1e-7, atol=1e-9)


def test_dpm_adaptive_does_not_evaluate_a_rejected_point_again():
    calls = []

    def suddenly_steep(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma))
        return x * torch.sigmoid(40 * (1 - sigma))

    steps = run("dpm_adaptive", suddenly_steep, start_at(14.6, 8), karras_sigmas(10, 0.03, 14.6, torch.float64))
    assert len(calls) > 3 * len(steps)  # some steps were rejected ...
    assert len(set(calls)) == len(calls)  # ... and yet nothing was computed twice


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_dpm_adaptive_ends_when_the_network_fails(wrong):
    sigmas = karras_sigmas(10, 0.03, 14.6, torch.float64)
    steps = run("dpm_adaptive", lambda x, sigma: x * wrong, start_at(14.6, 8), sigmas)
    assert len(steps) == 1 and not steps[0].x.isfinite().all()


def test_multistep_weights_integrate_cubics_exactly():
    levels, end = [2.0, 3.0, 5.0, 9.0], 1.2
    weights = multistep_weights(levels, end)
    for power in range(4):
        exact = (end ** (power + 1) - levels[0] ** (power + 1)) / (power + 1)
        assert sum(w * level**power for w, level in zip(weights, levels, strict=True)) == pytest.approx(exact)


# -- diffusers

NOISE_MODEL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}


def run_peer(scheduler, steps: int, shape: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """The final latent of a diffusers scheduler, run from unit noise; and its timesteps."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    x = start_at(1.0, *shape)
    for t in scheduler.timesteps:
        sigma = TABLE.sigmas[t].double()
        scaled = x * (1 + sigma**2).sqrt()  # theirs is variance preserving
        epsilon = (scaled - curved_denoiser(scaled, sigma)) / sigma
        x = scheduler.step(epsilon, t, x, generator=generator).prev_sample
    return x, scheduler.timesteps.tolist()


@pytest.mark.parametrize(
    ("name", "scheduler"), [("ddpm", "DDPMScheduler"), ("tcd", "TCDScheduler"), ("lcm", "LCMScheduler")]
)
def test_sampler_agrees_with_diffusers(name, scheduler, monkeypatch):
    import diffusers

    options = {"ddpm": {"clip_sample": False, "variance_type": "fixed_small"}, "tcd": {}, "lcm": {}}[name]
    peer = getattr(diffusers, scheduler)(**NOISE_MODEL, **options)
    if name == "lcm":  # their boundary condition belongs to the prediction here, not to the sampler
        monkeypatch.setattr(peer, "get_scalings_for_boundary_condition_discrete", lambda t: (0.0, 1.0))
    shape = (1, 4, 3, 3)
    expected, timesteps = run_peer(peer, 8, shape)
    sigmas = torch.cat([TABLE.sigmas[timesteps], torch.zeros(1)]).double()
    start = start_at(1.0, *shape) * (1 + sigmas[0] ** 2).sqrt()
    generator = torch.Generator().manual_seed(1)
    steps = run(
        name, curved_denoiser, start, sigmas, lambda a, b: torch.randn(shape, dtype=torch.float64, generator=generator)
    )
    torch.testing.assert_close(steps[-1].x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "solver"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
@pytest.mark.parametrize("count", [4, 5, 12])
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of the peer, in numpy 2
def test_uni_pc_agrees_with_diffusers(name, solver, count):
    from diffusers import UniPCMultistepScheduler

    peer = UniPCMultistepScheduler(
        solver_order=3, solver_type=solver, prediction_type="sample", final_sigmas_type="sigma_min"
    )
    sigmas = calculate_sigmas_all(name, TABLE, "karras", count)
    peer.set_timesteps(count)
    peer.sigmas = torch.where(sigmas == 0, 0.001, sigmas)
    start = start_at(14.6, 1, 4, 3, 3)
    x = start / (1 + float(peer.sigmas[0]) ** 2) ** 0.5
    for t, sigma in zip(peer.timesteps, sigmas.double(), strict=False):
        guess = curved_denoiser(x * (1 + sigma**2).sqrt(), sigma)
        x = peer.step(guess, t, x).prev_sample
    steps = run(name, curved_denoiser, start, sigmas.double())
    assert len(steps) == count
    torch.testing.assert_close(steps[-1].x, x * (1 + 0.001**2) ** 0.5, rtol=1e-6, atol=1e-7)


# -- worked examples


def test_heunpp2_weighs_the_slopes_by_the_levels_ahead():
    # Data of spread 1, so the slope at x and level s is x s / (1 + s^2). Levels 4, 2, 1, 0 from x = 17.
    sigmas = torch.tensor([4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    steps = run("heunpp2", lambda x, s: x / (1 + s**2), torch.tensor([17.0], dtype=torch.float64), sigmas)
    d1 = 17 * 4 / 17  # 4
    x2 = 17 - 2 * d1  # 9
    d2 = 9 * 2 / 5  # 3.6
    x3 = x2 - d2  # 5.4
    d3 = x3 / 2  # 2.7
    after_first = 17 - 2 * ((1 - 2 / 12 - 1 / 12) * d1 + 2 / 12 * d2 + 1 / 12 * d3)
    assert steps[0].x.item() == pytest.approx(after_first)
    d = after_first * 2 / 5
    ahead = (after_first - d) / 2
    after_second = after_first - (7 / 8 * d + 1 / 8 * ahead)  # weight 1 / (2 * 4)
    assert steps[1].x.item() == pytest.approx(after_second)
    assert steps[2].x.item() == pytest.approx(after_second / 2)  # Euler into 0: the guess at level 1


@pytest.mark.parametrize(("steps", "extra", "times"), [(20, 9, 1), (35, 9, 1), (36, 9, 2), (60, 15, 2)])
def test_restart_goes_back_from_a_tenth_to_two(steps, extra, times):
    sigmas = calculate_sigmas_all("restart", TABLE, "normal", steps)
    segments = restart_segments(sigmas)
    assert len(segments) == steps
    base = karras_sigmas(steps - extra * times, float(sigmas[-2]), float(sigmas[0])).tolist()
    low, high = (min(base, key=lambda s: abs(s - anchor)) for anchor in (0.1, 2.0))
    jumps = [(float(a[1]), float(b[0])) for a, b in pairwise(segments) if a[1] != b[0]]
    assert len(jumps) == times
    for down, up in jumps:
        assert (down, up) == pytest.approx((low, high))
    assert float(segments[0][0]) == pytest.approx(base[0]) and float(segments[-1][1]) == 0


@pytest.mark.parametrize("steps", range(20, 60))
def test_restart_asks_for_noise_only_where_it_goes_back(steps):
    asked = []

    def noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        asked.append(float(sigma_next) / float(sigma))
        return torch.zeros(1)

    run("restart", gaussian_denoiser, torch.ones(1), calculate_sigmas_all("restart", TABLE, "karras", steps), noise)
    assert len(asked) == (2 if steps >= 36 else 1) and min(asked) > 5


def test_restart_adds_exactly_the_noise_that_is_missing():
    sigmas = calculate_sigmas_all("restart", TABLE, "karras", 20).double()
    asked = []

    def noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        asked.append((float(sigma), float(sigma_next)))
        return torch.full((1,), 1.0, dtype=torch.float64)

    steps = run("restart", lambda x, sigma: x, torch.zeros(1, dtype=torch.float64), sigmas, noise)
    ((low, high),) = asked
    assert low < 0.2 < 1.5 < high
    assert steps[-1].x.item() == pytest.approx(math.sqrt(high**2 - low**2))  # this denoiser never moves x


def test_short_restart_runs_are_plain_heun():
    """Longer ones replace the schedule; kept (register: Q34)."""
    sigmas = calculate_sigmas_all("restart", TABLE, "normal", 19).double()
    start = start_at(14.6, 8)
    plain, restarted = (run(name, curved_denoiser, start, sigmas)[-1].x for name in ("heun", "restart"))
    assert torch.equal(plain, restarted)


@pytest.mark.parametrize("scheduler", ["karras", "normal", "exponential"])
def test_tcd_stays_finite_on_the_lowest_level_of_the_full_table(scheduler):
    """The root of a tiny negative number in the reference (register: Q44)."""
    sigmas = calculate_sigmas_all("tcd", TABLE, scheduler, 10)
    initial, noise = noise_for("tcd", 3, (1, 4, 8, 8), sigmas)
    assert run("tcd", gaussian_denoiser, initial * sigmas[0], sigmas, noise)[-1].x.isfinite().all()


def test_tcd_ends_at_the_lowest_training_step_whatever_its_table():
    start = torch.ones(4, dtype=torch.float64)
    (step,) = run("tcd", lambda x, sigma: 0 * x, start, torch.tensor([2.0, 0.0]).double(), table=distilled_table())
    lowest = TABLE.sigmas[0].item()  # the share of noise is then sigma / sqrt(1 + sigma^2)
    torch.testing.assert_close(step.x, start / 2 * lowest / math.sqrt(1 + lowest**2), rtol=1e-4, atol=0)


def test_tcd_says_that_it_needs_training_steps():
    sigmas = calculate_sigmas_all("tcd", EDMTable(), "karras", 10)
    with pytest.raises(BadSetting, match="tcd needs a model with 1000 training steps"):
        run("tcd", gaussian_denoiser, start_at(120, 4), sigmas, noise_in_order(4), EDMTable())


def test_names_ending_in_gpu_mean_the_same_sampler():
    """Q12; where noise is drawn is a setting of its own (`noise_device`)."""
    for name in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        assert SAMPLERS[f"{name}_gpu"] is SAMPLERS[name]
