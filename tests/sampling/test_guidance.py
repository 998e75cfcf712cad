import math

import pytest
import torch
from torch import Tensor

from core.sampling.denoiser import Condition
from core.sampling.guidance import adaptive_scale, guided, joint_bilateral, rescale_with, sharpened
from core.sampling.prediction import Prediction, sampling_for
from core.sampling.tables import discrete_table

POSITIVE, NEGATIVE = Condition(torch.ones(1, 1, 1)), Condition(torch.zeros(1, 1, 1))
TABLE = discrete_table()


class Predictor:
    """Clean guesses: half of x, with a pattern of its own for the prompt. Keeps the conditions of each call."""

    def __init__(self) -> None:
        self.calls: list[list[Condition]] = []
        self.pattern = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def __call__(self, x: Tensor, sigma: Tensor, conditions) -> list[Tensor]:
        self.calls.append(list(conditions))
        return [x * 0.5 + (self.pattern if condition is POSITIVE else 0) for condition in conditions]


def latent(seed: int = 1) -> Tensor:
    return torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def guide(predict: Predictor, scale: float, progress: float = 0.5, **options):
    return guided(predict, POSITIVE, NEGATIVE, scale=scale, progress=lambda sigma: progress, **options)


def test_scale_1_asks_once_and_changes_nothing():
    predict = Predictor()
    x = latent()
    x0 = guide(predict, 1.0, sharpness=30.0, mimic_scale=1.0)(x, torch.tensor(1.0))
    assert predict.calls == [[POSITIVE]]
    assert torch.equal(x0, x * 0.5 + predict.pattern)


def test_batched_is_one_call_with_the_negative_first_and_equals_two():
    x, sigma = latent(), torch.tensor(1.0)
    one, two = Predictor(), Predictor()
    together = guide(one, 7.0, sharpness=2.0, batched=True)(x, sigma)
    apart = guide(two, 7.0, sharpness=2.0, batched=False)(x, sigma)
    assert one.calls == [[NEGATIVE, POSITIVE]]
    assert two.calls == [[NEGATIVE], [POSITIVE]]
    assert torch.equal(together, apart)


def test_guidance_exaggerates_what_the_prompt_changes():
    predict, x = Predictor(), latent()
    torch.testing.assert_close(guide(predict, 5.0)(x, torch.tensor(1.0)), x * 0.5 + 5 * predict.pattern)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_adaptive_guidance_mixes_two_guided_noise_estimates_by_progress(progress):
    predict, x = Predictor(), latent()
    ours = guide(predict, 12.0, progress, mimic_scale=7.0)(x, torch.tensor(1.0))
    noise_prompt, noise_plain = x - (x * 0.5 + predict.pattern), x - x * 0.5
    full = noise_plain + 12 * (noise_prompt - noise_plain)
    mimic = noise_plain + 7 * (noise_prompt - noise_plain)
    torch.testing.assert_close(ours, x - (progress * full + (1 - progress) * mimic))


def test_adaptive_guidance_acts_only_above_its_scale():
    assert adaptive_scale(4.0, 7.0, 0.0) == adaptive_scale(4.0, 7.0, 1.0) == 4.0
    assert adaptive_scale(7.0, 7.0, 0.2) == 7.0
    assert adaptive_scale(12.0, 7.0, 0.0) == 7.0 and adaptive_scale(12.0, 7.0, 1.0) == 12.0


def test_sharpness_acts_on_the_prompts_noise_in_proportion_to_progress():
    predict, x = Predictor(), latent()
    x0 = x * 0.5 + predict.pattern
    share = 0.001 * 20 * 0.25
    noise = share * naive_bilateral(x - x0, x0) + (1 - share) * (x - x0)
    plain = x - x * 0.5
    expected = x - (plain + 3 * (noise - plain))
    ours = guide(predict, 3.0, 0.25, sharpness=20.0)(x, torch.tensor(1.0))
    torch.testing.assert_close(ours, expected)


def test_guidance_takes_its_progress_from_the_table():
    x, seen = latent(), []

    def progress(sigma: Tensor) -> float:
        seen.append(TABLE.progress(sigma))
        return seen[-1]

    denoise = guided(Predictor(), POSITIVE, NEGATIVE, scale=9.0, mimic_scale=7.0, progress=progress)
    for t in (999, 499, 0):
        denoise(x, TABLE.sigmas[t])
    assert seen == pytest.approx([0.0, 500 / 999, 1.0])


def test_q05b_the_ramp_of_sharpness_and_adaptive_guidance_may_be_another_than_the_progress():
    x, sigma = latent(), torch.tensor(1.0)
    chosen = {"mimic_scale": 7.0, "sharpness": 20.0}
    ours = guide(Predictor(), 12.0, 0.25, ramp=lambda sigma: 0.998, **chosen)(x, sigma)
    assert torch.equal(ours, guide(Predictor(), 12.0, 0.998, **chosen)(x, sigma))
    predict = Predictor()
    guide(predict, 12.0, 0.25, ramp=lambda sigma: 0.998, end=0.5, **chosen)(x, sigma)
    assert predict.calls == [[NEGATIVE, POSITIVE]]  # guidance ends by the progress


def naive_bilateral(values: Tensor, guide: Tensor) -> Tensor:
    """The filter as its definition says it, pixel by pixel."""
    normal = (guide - guide.mean()) / (guide.std() + 1e-5)
    result = torch.zeros_like(values)
    _, _, height, width = values.shape

    def mirrored(i: int, size: int) -> int:
        i = abs(i)
        return 2 * (size - 1) - i if i >= size else i

    for y in range(height):
        for x in range(width):
            total, weights = torch.zeros(values.shape[1], dtype=values.dtype), 0.0
            for dy in range(-6, 7):
                for dx in range(-6, 7):
                    ny, nx = mirrored(y + dy, height), mirrored(x + dx, width)
                    colour = float((normal[0, :, ny, nx] - normal[0, :, y, x]).abs().sum()) ** 2
                    weight = math.exp(-colour / (2 * 3**2)) * math.exp(-(dy**2 + dx**2) / (2 * 3**2))
                    total += weight * values[0, :, ny, nx]
                    weights += weight
            result[0, :, y, x] = total / weights
    return result


def test_filter_equals_its_definition():
    values, guide = latent(2), latent(3)
    torch.testing.assert_close(joint_bilateral(values, guide), naive_bilateral(values, guide))


def test_filter_keeps_latents_of_a_batch_apart():
    values, guide = torch.cat([latent(2), latent(5)]), torch.cat([latent(3), 10 * latent(6)])
    both = joint_bilateral(values, guide)
    torch.testing.assert_close(both[1:], joint_bilateral(values[1:], guide[1:]))


def test_filter_smooths_areas_but_not_across_an_edge_of_the_guide():
    guide = torch.zeros(1, 4, 20, 20)
    guide[..., 10:] = 100.0
    values = guide + 0.1 * torch.randn(guide.shape, generator=torch.Generator().manual_seed(0))
    smooth = joint_bilateral(values, guide)
    assert smooth[..., :3].std() < 0.05 and smooth[..., -3:].std() < 0.05
    blind = joint_bilateral(values, torch.zeros_like(guide))
    assert blind[..., 9].mean() > 40 and smooth[..., 9].mean() < 4


def test_latents_too_small_for_the_window_stay_as_they_are():
    x, x0 = torch.randn(2, 1, 4, 6, 30)
    assert sharpened(x, x0, amount=0.5) is x0
    assert sharpened(*torch.randn(2, 1, 4, 7, 7), amount=0.5).isfinite().all()


@pytest.mark.parametrize("kind", ["epsilon", "v", "edm"])
@pytest.mark.parametrize("amount", [0.3, 0.7, 1.0])
def test_rescaled_guidance_is_what_diffusers_does_to_the_networks_output(kind, amount):
    """A hook of the guidance that the reference has no effect for (register: Q40)."""
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

    prediction, _ = sampling_for("karras", kind)
    x, sigma = latent(), torch.tensor(1.7, dtype=torch.float64)
    outputs = {POSITIVE: latent(5) * 1.1, NEGATIVE: latent(6)}

    def predict(x, sigma, conditions):
        return [prediction.denoised(x, outputs[condition], sigma) for condition in conditions]

    found = guided(
        predict,
        POSITIVE,
        NEGATIVE,
        scale=8.0,
        progress=prediction.table.progress,
        rescale=rescale_with(prediction, amount),
    )(x, sigma)
    plain = outputs[NEGATIVE] + 8.0 * (outputs[POSITIVE] - outputs[NEGATIVE])
    wanted = prediction.denoised(x, rescale_noise_cfg(plain, outputs[POSITIVE], amount), sigma)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, prediction.denoised(x, plain, sigma), rtol=0.01)


def test_rescaling_by_nothing_is_no_function_at_all():
    assert rescale_with(Prediction("v", TABLE), 0.0) is None


@pytest.mark.parametrize("end", [0.0, 0.5, 0.7])
def test_after_its_end_guidance_asks_for_the_prompt_alone_as_scale_1_does(end):
    """The loop written by hand: Euler steps with scale 6 while the timestep is above (1 - end) x 999, with 1 from then on."""
    sigmas = torch.cat([TABLE.sigmas[[999, 800, 600, 499, 300, 200, 0]].double(), torch.zeros(1, dtype=torch.float64)])
    predict, by_hand = Predictor(), Predictor()
    denoise = guided(
        predict, POSITIVE, NEGATIVE, scale=6.0, sharpness=20.0, mimic_scale=4.0, progress=TABLE.progress, end=end
    )
    before = guided(by_hand, POSITIVE, NEGATIVE, scale=6.0, sharpness=20.0, mimic_scale=4.0, progress=TABLE.progress)
    x = ours = latent() * sigmas[0]
    for step, timestep in enumerate([999, 800, 600, 499, 300, 200, 0]):
        sigma, following = sigmas[step], sigmas[step + 1]
        ours = ours + (ours - denoise(ours, sigma)) / sigma * (following - sigma)
        guess = before(x, sigma) if timestep > (1 - end) * 999 else by_hand(x, sigma, [POSITIVE])[0]
        x = x + (x - guess) / sigma * (following - sigma)
    assert torch.equal(ours, x)
    assert [len(call) for call in predict.calls] == {0.0: [1] * 7, 0.5: [2] * 3 + [1] * 4, 0.7: [2] * 5 + [1] * 2}[end]


def test_guidance_that_never_ends_guides_at_the_lowest_level_too():
    predict = Predictor()
    denoise = guided(predict, POSITIVE, NEGATIVE, scale=6.0, progress=TABLE.progress, end=1.0)
    denoise(latent(), TABLE.sigmas[0])
    assert TABLE.progress(TABLE.sigmas[0]) == 1.0 and predict.calls == [[NEGATIVE, POSITIVE]]
