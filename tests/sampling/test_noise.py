import warnings

import pytest
import torch

from core.sampling.noise import BROWNIAN_SAMPLERS, BrownianTree, add_noise, noise_for
from core.sampling.samplers import SAMPLERS
from core.sampling.schedules import calculate_sigmas_all
from core.sampling.tables import EDMTable, discrete_table

SIGMAS = calculate_sigmas_all("dpmpp_2m_sde", discrete_table(), "karras", 30)
LOW, HIGH = float(SIGMAS[-2]), float(SIGMAS[0])
SHAPE = (1, 4, 6, 5)


def peer_tree(seed: int, low: float = LOW, high: float = HIGH):
    import torchsde

    return torchsde.BrownianTree(low, torch.zeros(SHAPE), high, entropy=seed)


@pytest.mark.parametrize("seed", [0, 1234, 2**63 - 1])
def test_tree_equals_torchsde_on_the_steps_of_a_run(seed):
    ours, peer = BrownianTree(seed, LOW, HIGH, SHAPE), peer_tree(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer warns of times that round to just outside its interval
        for sigma, sigma_next in zip(SIGMAS[:-2].tolist(), SIGMAS[1:-1].tolist(), strict=True):
            expected = -peer(sigma_next, sigma) / (sigma - sigma_next) ** 0.5
            torch.testing.assert_close(ours.noise(sigma, sigma_next), expected, rtol=1e-6, atol=1e-6)


def test_tree_equals_torchsde_anywhere_and_in_any_order():
    ours, peer = BrownianTree(7, 0.002, 120.0, SHAPE), peer_tree(7, 0.002, 120.0)
    for start, end in [(3.0, 90.0), (0.1, 0.100001), (0.002, 120.0), (50.0, 61.0), (0.3, 0.31), (61.0, 119.999999)]:
        torch.testing.assert_close(ours.increment(start, end), peer(start, end), rtol=1e-6, atol=1e-6)


def test_tree_does_not_depend_on_what_was_asked_before():
    fresh, used = BrownianTree(7, LOW, HIGH, SHAPE), BrownianTree(7, LOW, HIGH, SHAPE)
    for start in (0.1, 5.0, 2.0):
        used.increment(start, start + 1)
    assert torch.equal(used.increment(1.0, 3.0), fresh.increment(1.0, 3.0))


def test_tree_remembers_only_the_latest_path():
    tree = BrownianTree(7, 0.002, 120.0, SHAPE)
    for i in range(200):
        tree.increment(0.5 * i + 0.1, 0.5 * i + 0.6)
    assert len(tree._halves) < 60


def test_noise_of_adjoining_steps_is_independent_and_of_unit_variance():
    tree = BrownianTree(3, LOW, HIGH, (50_000,))
    first, second = tree.noise(5.0, 2.0), tree.noise(2.0, 1.9)
    for noise in (first, second):
        assert noise.mean().item() == pytest.approx(0, abs=0.02)
        assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert (first * second).mean().item() == pytest.approx(0, abs=0.02)


def test_noise_over_two_steps_adds_up_to_that_of_the_whole():
    tree = BrownianTree(3, LOW, HIGH, SHAPE)
    parts = tree.noise(5.0, 2.0) * 3**0.5 + tree.noise(2.0, 1.0)
    torch.testing.assert_close(parts, tree.noise(5.0, 1.0) * 2)
    torch.testing.assert_close(tree.noise(1.0, 5.0), -tree.noise(5.0, 1.0))


def test_times_outside_the_interval_count_as_its_ends():
    tree = BrownianTree(3, 1.0, 2.0, SHAPE)
    assert not tree.increment(3.0, 4.0).any() and not tree.increment(0.1, 0.2).any()
    assert torch.equal(tree.increment(0.0, 9.0), tree.increment(1.0, 2.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_starts_from_the_unit_gaussian_of_its_seed(sampler):
    initial, _ = noise_for(sampler, 5, SHAPE, SIGMAS)
    assert torch.equal(initial, torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)))


def test_plain_noise_continues_the_stream_of_the_initial_noise():
    initial, noise = noise_for("euler_ancestral", 5, SHAPE, SIGMAS)
    generator = torch.Generator().manual_seed(5)
    for drawn in (initial, noise(SIGMAS[0], SIGMAS[1]), noise(SIGMAS[1], SIGMAS[2])):
        assert torch.equal(drawn, torch.randn(SHAPE, generator=generator))


def test_two_runs_do_not_share_their_stream():
    _, one = noise_for("lcm", 5, SHAPE, SIGMAS)
    first = one(SIGMAS[0], SIGMAS[1])
    _, two = noise_for("lcm", 5, SHAPE, SIGMAS)
    one(SIGMAS[1], SIGMAS[2])
    assert torch.equal(two(SIGMAS[0], SIGMAS[1]), first)


@pytest.mark.parametrize("sampler", sorted(BROWNIAN_SAMPLERS))
def test_sde_samplers_get_the_tree_over_the_positive_levels_of_their_run(sampler):
    """Of this run, whatever its table: LCM, TCD or EDM (register: Q05a)."""
    edm = calculate_sigmas_all(sampler, EDMTable(), "karras", 12)
    _, noise = noise_for(sampler, 9, SHAPE, edm)
    tree = BrownianTree(9, float(edm[-2]), float(edm[0]), SHAPE)
    step = noise(edm[0], edm[1])
    assert step.any()  # not silent above 14.6, where a tree over SDXL's range would be
    assert torch.equal(step, tree.noise(float(edm[0]), float(edm[1])))


def test_on_the_cpu_both_noise_devices_are_the_same():
    for sampler in ("dpmpp_sde", "euler_ancestral"):
        draws = [noise_for(sampler, 5, SHAPE, SIGMAS, "cpu", where) for where in ("cpu", "device")]
        (initial_a, a), (initial_b, b) = draws
        assert torch.equal(initial_a, initial_b) and torch.equal(a(SIGMAS[3], SIGMAS[4]), b(SIGMAS[3], SIGMAS[4]))


def test_a_run_of_one_step_needs_no_interval():
    for sampler in sorted(BROWNIAN_SAMPLERS):
        initial, _ = noise_for(sampler, 5, SHAPE, torch.tensor([14.6, 0.0]))
        assert initial.isfinite().all()


def test_a_full_run_starts_at_unit_variance_of_the_networks_input():
    latent, noise = torch.full(SHAPE, 2.0), torch.ones(SHAPE)
    sigma = torch.tensor(3.0)
    full = add_noise(latent, noise, sigma, sigma_max=3.0)
    torch.testing.assert_close(full, torch.full(SHAPE, 2 + 10**0.5))
    torch.testing.assert_close(add_noise(latent, noise, sigma, sigma_max=3.00002), full)  # within 1e-5
    torch.testing.assert_close(add_noise(latent, noise, sigma, sigma_max=2.5), full)
    torch.testing.assert_close(add_noise(latent, noise, sigma, sigma_max=3.1), torch.full(SHAPE, 5.0))
