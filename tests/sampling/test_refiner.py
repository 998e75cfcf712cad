"""The arithmetic of a refiner's turn, against the specification's figures and by hand."""

import pytest
import torch

from core.errors import BadSetting
from core.sampling.refiner import NoiseRecord, Relay, choose_swap, swap_threshold, with_mean_of
from core.settings import Settings


@pytest.mark.parametrize(("steps", "switch", "threshold"), [(30, 24, 0.26125), (30, 15, 0.56097), (10, 10, 0.0)])
def test_the_swap_threshold_is_the_share_left_to_the_power_0_834(steps, switch, threshold):
    assert swap_threshold(steps, switch) == pytest.approx(threshold, abs=5e-6)


def test_a_run_without_steps_is_an_error_and_no_division_by_zero():
    with pytest.raises(BadSetting, match="steps is 0"):
        swap_threshold(0, 0)


@pytest.mark.parametrize(
    ("steps", "share", "switch"),
    [(30, 0.5, 15), (30, 0.8, 24), (60, 0.75, 45), (5, 0.5, 2), (7, 0.5, 4), (1, 1.0, 1), (3, 0.1, 0)],
)
def test_the_switch_step_rounds_halves_to_even(steps, share, switch):
    assert Settings(steps=steps, refiner_switch=share).switch_step == switch


@pytest.mark.parametrize("asked", ["joint", "separate", "vae"])
def test_models_that_share_latents_swap_as_asked(asked):
    assert choose_swap(asked, 30, 24, 1.0, own_vae=False) == asked
    assert choose_swap(asked, 30, 24, 0.1, own_vae=False) == asked
    assert choose_swap(asked, 30, 30, 1.0, own_vae=False) == "base"


@pytest.mark.parametrize(("asked", "own_vae"), [("vae", False), ("joint", True)])
def test_a_clean_picture_on_the_way_takes_two_steps(asked, own_vae):
    assert choose_swap(asked, 1, 0, 1.0, own_vae=own_vae) == "base"
    assert choose_swap(asked, 2, 0, 1.0, own_vae=own_vae) == choose_swap(asked, 2, 1, 1.0, own_vae=own_vae) == "vae"


@pytest.mark.parametrize("asked", ["joint", "separate", "vae"])
@pytest.mark.parametrize(
    ("denoise", "swap"),
    [(1.0, "vae"), (0.91, "vae"), (0.9, "base"), (0.2613, "base"), (0.2612, "refiner"), (0.1, "refiner")],
)
def test_a_refiner_with_its_own_vae_swaps_by_the_strength_whatever_was_asked(asked, denoise, swap):
    assert choose_swap(asked, 30, 24, denoise, own_vae=True) == swap


def test_noise_takes_over_the_records_mean_and_keeps_its_own_differences():
    generator = torch.Generator().manual_seed(0)
    noise, record = torch.randn(2, 1, 4, 3, 5, generator=generator)
    moved = with_mean_of(noise, record)
    torch.testing.assert_close(moved.mean(1), record.mean(1))
    torch.testing.assert_close(moved - moved.mean(1, keepdim=True), noise - noise.mean(1, keepdim=True))


def test_the_noise_record_is_of_the_latest_answer():
    record = NoiseRecord(lambda x, sigma: x / 2)
    for value, sigma in ((8.0, 2.0), (6.0, 0.5)):
        x0 = record(torch.full((1, 4, 1, 1), value), torch.tensor(sigma))
        assert (x0 == value / 2).all()
        assert (record.epsilon == value / 2 / sigma).all()


def test_the_refiner_is_made_ready_only_when_its_turn_comes():
    made = []
    relay = Relay(lambda x, sigma: x, lambda: made.append(1) or (lambda x, sigma: -x), switch=1)
    x, sigma = torch.ones(1), torch.ones(())
    assert relay(x, sigma) == 1
    relay.done(0)
    assert relay(x, sigma) == 1 and not made
    assert relay(x, sigma) == -1 and made == [1]
    relay.done(1)
    assert relay(x, sigma) == -1 and made == [1]
