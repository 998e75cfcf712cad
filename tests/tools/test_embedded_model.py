"""The embedded model's tools: data, the autoencoder's start, the vocabulary, and the file they write."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

TOOLS = Path(__file__).parents[2] / "tools" / "embedded_model"
sys.path.insert(0, str(TOOLS))

import data  # noqa: E402
import sample  # noqa: E402
from export import fold_scale  # noqa: E402
from muon import orthogonal  # noqa: E402
from train_vae import CONFIG, identity_start  # noqa: E402
from training import Average, Budget, load, save  # noqa: E402
from words import Words  # noqa: E402

from core.models.clip import CLIPText  # noqa: E402
from core.models.configs import CLIPConfig  # noqa: E402
from core.models.vae import SDXL_SCALE, VAE  # noqa: E402


def test_the_table_names_at_least_fifty_things_once_each_and_ten_colours():
    names = [name for thing in data.THINGS for name in thing.names]
    assert len(data.THINGS) >= 50
    assert len(names) == len(set(names))
    assert len(data.COLOURS) >= 10
    assert {"a red apple", "a cat", "a slice of pizza"} <= {data.with_article(name) for name in names}


def test_captions_name_the_thing_and_every_background_but_white():
    rng = np.random.default_rng(0)
    for _ in range(500):
        thing, colour = int(rng.integers(len(data.THINGS))), int(rng.integers(len(data.COLOURS)))
        caption = data.caption(thing, colour, rng)
        assert any(name in caption for name in data.THINGS[thing].names)
        if colour != data.WHITE:
            assert data.COLOUR_NAMES[colour] in caption


def test_held_out_pairs_are_about_fifteen_percent_and_never_white():
    pairs = data.held_out()
    assert len(pairs) / (len(data.THINGS) * (len(data.COLOURS) - 1)) == pytest.approx(0.15, abs=0.01)
    assert all(colour != data.WHITE for _, colour in pairs)
    assert pairs == data.held_out()


def test_a_half_transparent_picture_mixes_with_the_ground():
    picture = np.zeros((256, 256, 4), np.uint8)
    picture[..., 0], picture[..., 3] = 200, 128
    placed = data.place(picture, (0.0, 0.0, 100.0), scale=0.5, dx=0, dy=0, side=64)
    share = 128 / 255
    assert placed[32, 32] == pytest.approx([200 * share, 0, 100 * (1 - share)], abs=1)
    assert placed[2, 2] == pytest.approx([0, 0, 100], abs=0)


def test_the_autoencoder_starts_as_pooling_and_bilinear_enlargement():
    vae = VAE(CONFIG)
    identity_start(vae)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    with torch.no_grad():
        pooled = vae.encode(image)[:, :3]
        expected = F.avg_pool2d(image, 8)
        torch.testing.assert_close(pooled, expected, rtol=0, atol=0.02)
        flat = vae.decode(vae.encode(image * 0 + torch.tensor([0.5, -0.25, 0.8])[None, :, None, None]))
    inner = flat[:, :, 16:-16, 16:-16]
    assert (inner - torch.tensor([0.5, -0.25, 0.8])[None, :, None, None]).abs().max() < 0.05


def test_folding_the_scale_changes_latents_but_not_pictures():
    vae = VAE(CONFIG)
    identity_start(vae)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor([0.1, -0.2, 0.3, 0.0]).view(1, 4, 1, 1),
        torch.tensor([0.5, 2.0, 1.0, 0.25]).view(1, 4, 1, 1),
    )
    with torch.no_grad():
        before_mean, before_logvar = vae.moments(image)
        before = vae.decode(before_mean)
        fold_scale(vae, mean, std)
        latent, logvar = vae.moments(image)
        torch.testing.assert_close(latent * SDXL_SCALE, (before_mean - mean) / std, rtol=1e-4, atol=1e-4)
        spread = (before_logvar / 2).exp() / std
        torch.testing.assert_close((logvar / 2).exp() * SDXL_SCALE, spread, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(vae.decode(latent), before, rtol=1e-3, atol=1e-3)


def test_the_small_vocabulary_and_the_full_table_read_a_text_alike():
    words = Words()
    torch.manual_seed(0)
    compact = CLIPText(CLIPConfig(width=32, layers=2, mlp_width=64, vocabulary=words.size, projection=32))
    full = CLIPText(CLIPConfig(width=32, layers=2, mlp_width=64, projection=32))
    table = "text_model.embeddings.token_embedding.weight"
    tensors = dict(compact.state_dict())
    tensors[table] = words.full_table(tensors[table])
    full.load_state_dict(tensors)
    text = "a zebra and a red apple on a blue background"  # "zebra" is in no caption: the unknown word's row
    rows = words.batch([words.content(text)])[0]
    ids = [49406, *words.tokenizer.ids(text), 49407]
    ids += [49407] * (77 - len(ids))
    with torch.no_grad():
        small, large = compact(rows), full(torch.tensor([ids]))
    torch.testing.assert_close(small.hidden, large.hidden)
    torch.testing.assert_close(small.pooled, large.pooled)
    assert words.unknown in words.content(text)
    assert words.unknown not in words.content("a red apple on a blue background")


def test_the_noise_levels_are_those_of_sdxl():
    table = sample.sigma_table()
    assert float(table[0]) == pytest.approx(0.0291672, rel=1e-5)
    assert float(table[-1]) == pytest.approx(14.6146, rel=1e-5)
    levels = sample.karras(10)
    assert levels[0] == pytest.approx(14.6146) and levels[-2] == pytest.approx(0.0291672) and levels[-1] == 0


def test_the_sampler_ends_at_the_only_picture_there_is():
    """If every latent is m, the exact velocity is (x - m) / sigma-scaled; any step size must end at m."""
    m = 0.7

    class OnlyOne(torch.nn.Module):
        def forward(self, x, t, context, y):
            sigma = sample.sigma_table()[t.long()][:, None, None, None]
            signal = (1 + sigma**2).rsqrt()
            noise = (x / signal - m) / sigma
            return signal * (noise - sigma * m)

    context, pooled = torch.zeros(4, 77, 8), torch.zeros(4, 64)
    latents = sample.sample(OnlyOne(), context, pooled, side=64, seeds=[0, 1], steps=12, guidance=1.0)
    assert (latents - m).abs().max() < 0.05


def test_the_average_forgets_its_start():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(100.0)
    average = Average(module, decay=0.999)
    module.weight.data.fill_(1.0)
    for _ in range(200):
        average.update(module)
    assert float(average.weights["weight"]) == pytest.approx(1.0, abs=0.01)


def test_the_learning_rate_warms_up_stays_and_falls_once():
    budget = Budget(minutes=math.inf, samples=1000, decay_from=0.5)
    assert budget.rate(0, warm_up=10) == pytest.approx(0.1)
    budget.seen = 400
    assert budget.rate(50, warm_up=10) == 1.0
    budget.seen = 750
    assert budget.rate(50, warm_up=10) == pytest.approx(0.5)


def test_orthogonal_makes_all_singular_values_about_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(48, 96)))
    assert float(values.min()) > 0.5 and float(values.max()) < 1.35


def test_a_training_state_comes_back_as_it_was_saved(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save(
        tmp_path / "run.safetensors", {"model": module.state_dict(), "optimizers": [optimizer.state_dict()], "step": 7}
    )
    state = load(tmp_path / "run.safetensors", "cpu")
    again = torch.nn.Linear(3, 2)
    again.load_state_dict(state["model"])
    assert torch.equal(again.weight, module.weight) and state["step"] == 7
    other = torch.optim.AdamW(again.parameters(), lr=1.0)
    other.load_state_dict(state["optimizers"][0])
    assert torch.equal(other.state[again.weight]["exp_avg"], optimizer.state[module.weight]["exp_avg"])
    assert load(tmp_path / "none.safetensors", "cpu") is None
