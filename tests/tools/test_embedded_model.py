"""The embedded model's tools: data, the autoencoder's start, the vocabulary, and the file they write."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

TOOLS = Path(__file__).parents[2] / "tools" / "embedded_model"
sys.path.insert(0, str(TOOLS))

import captions  # noqa: E402
import companions  # noqa: E402
import data  # noqa: E402
import encode  # noqa: E402
import evaluate  # noqa: E402
import sample  # noqa: E402
import scene  # noqa: E402
from captions import caption, phrases, with_article  # noqa: E402
from export import fold_scale  # noqa: E402
from model import Painter  # noqa: E402
from muon import orthogonal  # noqa: E402
from pool import Batch, Pool  # noqa: E402
from safetensors import safe_open  # noqa: E402
from scene import Mix, Scene, draw_scene, paint  # noqa: E402
from start import start  # noqa: E402
from train_unet import AS_THEY_ARE, FURTHEST, SHADED_FROM, offset_noise, own_errors, shading  # noqa: E402
from train_vae import CONFIG, identity_start, loss_of, psnr, uneven  # noqa: E402
from training import Average, Budget, load, save  # noqa: E402
from words import Words, full_table  # noqa: E402

from core.models.clip import CLIPText  # noqa: E402
from core.models.configs import CLIPConfig  # noqa: E402
from core.models.vae import SDXL_SCALE, VAE  # noqa: E402

RED, BLUE = data.COLOUR_NAMES.index("red"), data.COLOUR_NAMES.index("blue")
FLAT = data.STYLES.index("flat")


def scenes(n, *, mix=Mix()):  # noqa: B008
    rng = np.random.default_rng(0)
    unseen = data.held_out()
    return [draw_scene(int(rng.integers(206)), int(rng.integers(4)), 206, unseen, mix, rng) for _ in range(n)], rng


def disc(colour, side=256):
    """A picture, RGBA: a disc of `colour` in the middle, half as wide as the picture."""
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(y - side / 2 + 0.5, x - side / 2 + 0.5) < side / 4
    return np.dstack([np.full((side, side, 3), colour), 255 * inside]).astype(np.uint8)


def middle_of(pixels, colour):
    """Centre (y, x) of what is near `colour`, as shares of height and width."""
    near = np.abs(pixels.astype(int) - colour).max(axis=2) < 60
    y, x = np.nonzero(near)
    return y.mean() / pixels.shape[0], x.mean() / pixels.shape[1]


def test_the_table_names_at_least_three_hundred_things_once_each_and_ten_colours():
    names = [name for thing in data.THINGS for name in thing.names]
    assert len(data.THINGS) >= 300
    assert len(names) == len(set(names))
    assert len({thing.code for thing in data.THINGS}) == len(data.THINGS)
    assert len(data.COLOURS) >= 10
    assert {"a red apple", "a cat", "a slice of pizza", "an umbrella", "a unicorn", "scissors"} <= set(
        map(with_article, names)
    )


STYLE_NAMES = {
    "3d": ["3d"],
    "flat": ["flat"],
    "line": ["line art", "lineart", "line drawing", "line icon"],
    "drawing": ["drawing", "cartoon"],
}


def parts_named(one: Scene, text: str) -> dict[str, bool]:
    """Which parts of a scene that are worth a word the caption names."""
    names = {
        thing: [
            form for name in data.THINGS[thing].names
            for form in (name, " ".join(w for w in name.split() if w not in {*data.COLOURS, "gold", "golden"}) or name)
        ]
        for thing in {one.thing, one.second} - {scene.NONE}
    }  # fmt: skip
    found = {"things": all(any(name in text for name in forms) for forms in names.values())}
    grounds = {one.ground, one.fade} - {data.WHITE, scene.NONE}
    if grounds:
        found["ground"] = all(data.COLOUR_NAMES[colour] in text for colour in grounds)
    if one.style:
        found["style"] = any(word in text for word in STYLE_NAMES[data.STYLES[one.style]])
    if one.small:
        found["size"] = any(word in text for word in ("small", "little", "tiny"))
    if one.place:
        found["place"] = ("", "left", "right", "top", "bottom")[one.place] in text
    return found


def test_captions_name_things_grounds_styles_sizes_and_places_and_leave_each_open_now_and_then():
    drawn, rng = scenes(3000)
    named = [parts_named(one, caption(one, rng)) for one in drawn]
    shares = {
        part: np.mean([found[part] for found in named if part in found]) for part in ("things", "ground", "style")
    }
    rare = np.mean([found[part] for found in named for part in ("size", "place") if part in found])
    whole = 1 - captions.ONE_PART
    assert shares["things"] == pytest.approx(whole, abs=0.015)
    assert shares["ground"] == pytest.approx((1 - captions.UNNAMED_GROUND) * whole + captions.ONE_PART / 3, abs=0.015)
    assert shares["style"] == pytest.approx((1 - captions.UNNAMED) * whole + captions.ONE_PART / 3, abs=0.02)
    assert rare == pytest.approx((1 - captions.UNNAMED) * whole, abs=0.04)


def test_a_caption_of_one_part_names_a_keyword_the_style_or_the_ground():
    def found(one):
        rng = np.random.default_rng(2)
        return {captions.one_part(one, rng) for _ in range(400)}

    apple, fox = 0, next(t for t, thing in enumerate(data.THINGS) if thing.names[0] == "fox")
    orange, black = map(data.COLOUR_NAMES.index, ("orange", "black"))
    keywords = {*data.THINGS[apple].keywords, *data.THINGS[fox].keywords}
    styles, grounds = (
        {"flat", "flat vector", "flat design", "flat style"},
        {"orange background", "an orange background"},
    )
    assert found(Scene(apple, fox, style=FLAT, ground=orange)) == keywords | styles | grounds
    gradient = {"an orange and white gradient background", "orange and white gradient background"}
    assert gradient <= found(Scene(apple, ground=orange, fade=data.WHITE))
    lines = found(Scene(apple, style=scene.LINE, ground=black))
    assert "white line art" in lines and "black line art" not in lines


def test_captions_do_not_claim_what_is_not_there():
    rng = np.random.default_rng(1)
    plain = [caption(Scene(int(rng.integers(206))), rng) for _ in range(300)]
    for text in plain:
        assert not any(word in text.split() for word in ("left", "small", "tiny", "flat", "cartoon", "and", "gradient"))
        assert "line art" not in text
    line = [caption(Scene(0, style=scene.LINE), rng) for _ in range(200)]  # "red apple" is not red in line art
    assert not any("red" in text.split() for text in line)


def test_every_word_of_a_caption_has_a_row_of_its_own():
    words, (drawn, rng) = Words(206), scenes(300)
    assert all(words.unknown not in words.content(caption(one, rng)) for one in drawn)
    assert len(set(phrases(206))) > 500


def test_held_out_pairs_are_about_fifteen_percent_and_never_white():
    pairs = data.held_out()
    assert len(pairs) / (len(data.THINGS) * (len(data.COLOURS) - 1)) == pytest.approx(0.15, abs=0.01)
    assert all(colour != data.WHITE for _, colour in pairs)
    assert pairs == data.held_out()


def test_no_scene_shows_a_held_out_pair():
    unseen = data.held_out()
    for one in scenes(2000)[0]:
        assert not unseen & {(t, c) for t in (one.thing, one.second) for c in (one.ground, one.fade)}


def test_scenes_come_in_the_shares_that_were_asked_for():
    drawn, _ = scenes(3000)
    mix = Mix()
    assert np.mean([one.second != scene.NONE for one in drawn]) == pytest.approx(mix.two, abs=0.03)
    assert np.mean([one.fade != scene.NONE for one in drawn]) == pytest.approx(mix.gradient, abs=0.03)
    assert np.mean([one.place != scene.MIDDLE for one in drawn]) == pytest.approx(0.88 * mix.placed, abs=0.03)


@pytest.mark.parametrize(("place", "axis", "low"), [(1, 1, True), (2, 1, False), (3, 0, True), (4, 0, False)])
def test_a_thing_is_where_its_place_says(place, axis, low):
    canvas = scene.compose(Scene(0, place=place), disc((200, 0, 0))[None], np.random.default_rng(0), (128, 160), 1.0)
    where = middle_of(np.asarray(canvas), (200, 0, 0))
    assert (where[axis] < 0.42) if low else (where[axis] > 0.58)
    assert where[1 - axis] == pytest.approx(0.5, abs=0.06)


def test_two_things_stand_side_by_side_and_one_above_the_other_where_the_picture_is_high():
    pictures = np.stack([disc((200, 0, 0)), disc((0, 0, 200))])
    for size, axis in (((128, 128), 1), ((128, 160), 1), ((160, 128), 0)):
        pixels = np.asarray(scene.compose(Scene(0, 1), pictures, np.random.default_rng(0), size, 1.0))
        assert middle_of(pixels, (200, 0, 0))[axis] < 0.4 and middle_of(pixels, (0, 0, 200))[axis] > 0.6


def test_a_gradient_runs_from_the_first_colour_at_the_top_to_the_second():
    pixels = np.asarray(scene.backdrop(Scene(0, ground=RED, fade=BLUE), np.random.default_rng(0), (64, 64))).astype(int)
    assert np.abs(pixels[0, 0] - data.COLOURS["red"]).max() < 20
    assert np.abs(pixels[-1, 0] - data.COLOURS["blue"]).max() < 20
    assert (np.diff(pixels[:, 0, 0]) <= 0).all() and (pixels == pixels[:, :1]).all()


def test_a_half_transparent_picture_mixes_with_the_ground():
    picture = np.zeros((256, 256, 4), np.uint8)
    picture[..., 0], picture[..., 3] = 200, 128
    pixels = scene.plain(0, data.BLACK, 0, picture[None], 64, 0.5)
    share, black = 128 / 255, np.asarray(data.COLOURS["black"])
    assert pixels[32, 32] == pytest.approx(np.array([200, 0, 0]) * share + black * (1 - share), abs=1.5)
    assert (pixels[2, 2] == black).all()


def test_line_art_is_white_on_black():
    picture = disc((0, 0, 0))
    assert scene.plain(0, data.BLACK, scene.LINE, picture[None], 64)[32, 32].min() > 250
    assert scene.plain(0, data.WHITE, scene.LINE, picture[None], 64)[32, 32].max() < 5


def test_size_conditions_tell_what_was_done_to_the_picture():
    picture, size = disc((200, 0, 0))[None], (96, 128)
    rng = np.random.default_rng(0)
    pixels, told = paint(Scene(0), picture, rng, size, Mix(larger=0, smaller=0, cropped=0))
    assert told == (96, 128, 0, 0, 96, 128) and pixels.shape == (96, 128, 3)
    for _ in range(20):
        pixels, told = paint(Scene(0), picture, rng, size, Mix(larger=0, smaller=0, cropped=1, spread=0))
        height, width, top, left = told[:4]
        assert height >= 96 and width >= 128 and told[4:] == size
        where = middle_of(pixels, (200, 0, 0))
        assert where[0] * 96 + top == pytest.approx(height / 2, abs=1.5)
        assert where[1] * 128 + left == pytest.approx(width / 2, abs=1.5)
    soft, told = paint(Scene(0), picture, rng, size, Mix(larger=0, smaller=1, cropped=0, spread=0))
    assert told[0] < 96 and told[1] < 128 and told[2:4] == (0, 0)
    sharp, _ = paint(Scene(0), picture, rng, size, Mix(larger=0, smaller=0, cropped=0, spread=0))
    assert evaluate.gradient_energy(soft) < evaluate.gradient_energy(sharp)


def test_a_deck_deals_every_thing_equally_often_and_styles_by_weight(tmp_path):
    (tmp_path / "data").mkdir()
    pictures = np.full((10, 2, 2, 4), 255, np.uint8)
    np.save(tmp_path / "data" / "pictures_3d.npy", pictures)
    pictures[3] = 0  # a thing that the flat style lacks
    np.save(tmp_path / "data" / "pictures_flat.npy", pictures)
    deck = encode.Deck(10, encode.shares("3d=3,flat=1"), tmp_path, np.random.default_rng(0))
    drawn = [deck.draw() for _ in range(4000)]
    counts = np.bincount([t for t, _ in drawn if t != 3], minlength=10)[[0, 1, 2, 4, 5, 6, 7, 8, 9]]
    assert counts.min() > 0.95 * counts.max()
    assert (3, 1) not in drawn
    assert np.mean([style for t, style in drawn if t != 3]) == pytest.approx(0.25, abs=0.03)


def test_a_scene_of_a_deck_shows_only_things_that_have_a_picture_in_its_style(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for style in ("3d", "flat"):
        pictures = np.full((6, 4, 4, 4), 255, np.uint8)
        pictures[1, ..., 3] = 0  # thing 1 has none
        np.save(folder / f"pictures_{style}.npy", pictures)
    deck = encode.Deck(6, encode.shares("3d=1,flat=1"), tmp_path, np.random.default_rng(0))
    drawn = [deck.scene(Mix(two=0.9)) for _ in range(300)]
    assert sum(one.second >= 0 for one in drawn) > 100
    assert all(1 not in (one.thing, one.second) for one in drawn)


def test_a_pool_gives_batches_of_one_shape_and_some_without_caption(tmp_path):
    for number, shape in enumerate(((4, 4), (4, 6))):
        rows = np.asarray([Scene(t, style=t % 4).row() for t in range(8)], np.int16)
        sizes = np.asarray([[8 * shape[0], 8 * shape[1], 0, 0, 8 * shape[0], 8 * shape[1]]] * 8, np.int16)
        latents = np.zeros((8, 4, *shape), np.float16)
        latents[:, 0] = np.arange(8)[:, None, None]
        np.savez(tmp_path / f"{number:03d}.npz", latents=latents, scenes=rows, sizes=sizes)
    pool = Pool(tmp_path, Words(206), seed=0)
    wide, square = pool.batch(8, 0.9), pool.batch(8, 0.1)
    assert wide.latents.shape == (8, 4, 4, 6) and square.latents.shape == (8, 4, 4, 4)
    assert sorted(square.latents[:, 0, 0, 0].tolist()) == list(range(8))  # each once before any comes again
    assert square.sizes.tolist() == [[32, 32, 0, 0, 32, 32]] * 8
    assert [data.STYLES[int(t) % 4] in ("flat", "line") for t in square.latents[:, 0, 0, 0]] == square.flat.tolist()
    contents = [c for _ in range(100) for c in pool.batch(8, 0.5).contents]
    assert np.mean([not c for c in contents]) == pytest.approx(0.1, abs=0.04)


def test_another_vocabulary_keeps_the_rows_of_the_words_it_shares():
    words = Words(206)
    known = words.known[5:50]
    old = torch.randn(len(known) + 3, 4, generator=torch.Generator().manual_seed(0))
    fresh = torch.zeros(words.size, 4)
    table = words.adopt(old, known, fresh)
    assert torch.equal(table[words.rows[known[7]]], old[7])
    assert torch.equal(table[words.unknown], old[len(known)]) and torch.equal(table[words.size - 1], old[-1])
    assert not table[words.rows[words.known[0]]].any()


def test_a_run_may_start_from_the_checkpoint_that_ships():
    words, path = Words(len(data.THINGS)), data.CHECKPOINT
    painter = Painter(words.size)
    state = start(painter, words, Path("nowhere"), str(path))
    painter.load_state_dict(state["model"])
    with safe_open(path, framework="pt") as file:
        table = file.get_tensor(
            "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
        ).float()
        first = file.get_tensor("model.diffusion_model.input_blocks.0.0.weight").float()
    assert torch.equal(painter.unet.input_blocks[0][0].weight, first)
    rows = painter.clip_l.text_model.embeddings.token_embedding.weight
    (fox,), learnt = words.tokenizer.ids("fox"), {*Words(data.STAGES[1]).known}
    new = next(token for token in words.known if token not in learnt)
    assert torch.equal(rows[words.rows[fox]], table[fox])
    assert torch.equal(rows[words.unknown], table[new])  # a word that it has no row for
    assert not torch.equal(rows[words.rows[new]], table[new])


def test_the_autoencoder_that_ships_keeps_colours_and_edges(tmp_path):
    vae = encode.trained_vae(tmp_path)
    pictures = np.stack([disc((220, 60, 40)), disc((0, 0, 0)), disc((60, 120, 240))])
    pixels = np.stack(
        [scene.plain(i, ground, 0, pictures, 256) for i, ground in enumerate((data.WHITE, data.WHITE, RED))]
    )
    assert psnr(vae, pixels, "cpu") > 30


def test_latents_of_the_autoencoder_that_ships_have_unit_spread_whatever_an_older_one_left(tmp_path):
    np.savez(tmp_path / "latent_scale.npz", mean=np.ones((1, 4, 1, 1)), std=np.full((1, 4, 1, 1), 1.5))
    mean, std = encode.latent_scale(tmp_path)
    pixels = np.stack([disc(colour)[..., :3] for colour in data.COLOURS.values()])
    latents = (encode.encode(encode.trained_vae(tmp_path), pixels, "cpu") - mean) / std
    assert 0.5 < latents.std() < 2


def test_the_judge_names_real_pictures_and_not_blobs():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (6, 16, 16, 4)).astype(np.uint8)
    pictures = pictures.repeat(16, 1).repeat(16, 2)
    pictures[..., 3] = 255
    asked = [evaluate.Question(t, RED, 0, "", False) for t in range(6)]
    right = np.stack([scene.plain(t, RED, 0, pictures, 128) for t in range(6)])
    scores = evaluate.judge(right, asked, 6, {0: pictures})
    assert (scores["top1"] == 1).all() and (scores["colour"] == 1).all() and (scores["sharpness"] == 1).all()
    wrong = evaluate.judge(right[[1, 2, 3, 4, 5, 0]], asked, 6, {0: pictures})
    assert (wrong["top1"] == 0).all()
    assert (evaluate.judge(np.full_like(right, 90), asked, 6, {0: pictures})["sharpness"] == 0).all()


def test_questions_name_a_style_and_a_ground_or_neither_and_some_pairs_were_never_trained():
    asked = evaluate.questions(206, [0, 1, 2], 3)
    assert len(asked) == 3 * 206 and sum(q.styled for q in asked) == 2 * 206
    for q in asked:
        named = [style for style, words in evaluate.STYLE_WORDS.items() if q.prompt.endswith(words)]
        assert named == ([data.STYLES[q.style]] if q.styled else [])
        assert (" on a" in q.prompt.removeprefix("a ")) == q.styled
        assert q.held_out == ((q.thing, q.colour) in data.held_out())
    assert {q.style for q in asked if q.styled} == {0, 1, 2} and sum(q.held_out for q in asked) > 150


@pytest.mark.parametrize("obeys", [True, False])
def test_a_negative_prompt_counts_where_what_it_names_is_gone(obeys):
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 100, (24, 8, 8, 4)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    dark[..., 3] = 255
    bright = dark.copy()
    bright[..., :3] += 150
    sets = {0: dark, FLAT: bright}

    class Obedient:
        vae = None

        def paint(self, prompts, seeds, negative_prompt=""):
            named = [t for t in range(24) if with_article(data.THINGS[t].names[0]) in prompts] or [3] * len(prompts)
            negative = negative_prompt if obeys else ""
            ground, style = (BLUE if negative == "white background" else data.WHITE), (FLAT if negative == "3d" else 0)
            other = negative == data.THINGS[3].names[0]
            return np.stack([scene.plain(5 if other else t, ground, style, sets[style], 128) for t in named])

    def style_of(pixels):
        return (pixels[:, 54:74, 54:74].mean((1, 2, 3)) > 120).astype(int)

    figures = evaluate.negatives(Obedient(), 24, 2, [0, FLAT], sets, style_of)
    assert figures == {
        "negative_ground": obeys, "negative_style": obeys, "negative_thing": obeys, "negative_top1": obeys,
    }  # fmt: skip


def test_unevenness_is_fine_and_coarse_and_stays_below_its_share_of_the_spread():
    latents = 7 * torch.randn(200, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    added = uneven(latents, 0.1)
    spread = added.std((1, 2, 3)) / latents.std()
    assert spread.max() < 0.1 * 1.1 and spread.min() < 0.02 and 0.02 < spread.mean() < 0.05
    alike = (added[:, :, :, 1:] * added[:, :, :, :-1]).mean((1, 2, 3)) / added.var((1, 2, 3))
    assert alike.min() < 0.1 and alike.max() > 0.5  # of a latent and the next one


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_offset_noise_has_a_mean_of_its_own_in_each_channel(offset):
    torch.manual_seed(0)
    noise = offset_noise(torch.zeros(500, 4, 32, 32), offset)
    means = noise.mean((2, 3))
    assert means.std().item() == pytest.approx(math.hypot(offset, 1 / 32), rel=0.05)
    assert (noise - means[:, :, None, None]).std().item() == pytest.approx(1, abs=0.01)
    assert abs(torch.corrcoef(means.T)[0, 1].item()) < 0.15


@pytest.mark.parametrize("sigma", [0.03, SHADED_FROM, 3.0])
def test_shading_lies_on_flat_pictures_alone_and_stays_below_its_share_of_the_spread(sigma):
    torch.manual_seed(0)
    flat = torch.arange(900) % 3 > 0
    batch = Batch(torch.zeros(900, 4, 32, 40), [], torch.zeros(900, 6), flat)
    added = shading(batch, torch.full((900,), sigma), 0.2) * max(sigma, SHADED_FROM)
    spread = added.std(dim=(1, 2, 3))
    assert not added[~flat].any()
    assert 0.15 < spread.max() < 0.21
    assert (spread[flat] == 0).float().mean() == pytest.approx(AS_THEY_ARE, abs=0.06)
    steps = added.diff(dim=3).std(dim=(1, 2, 3))[spread > 0] / spread[spread > 0]
    assert steps.min() < 0.5 and steps.max() > 1.2  # some are smooth, some fine


@pytest.mark.parametrize("level", [SHADED_FROM, 3.0])
def test_own_errors_lead_from_the_true_picture_to_the_one_that_the_network_sees(level):
    """A step from a higher level leaves so much of the true picture as the levels' ratio says."""
    torch.manual_seed(0)
    sigmas = sample.sigma_table()
    true, seen, noise = torch.randn(3, 300, 4, 4, 6).unbind()

    class Net(torch.nn.Module):
        def forward(self, x, t, texts, sizes):
            angle = sigmas[t].atan()[:, None, None, None]
            return (angle.cos() * x - seen) / angle.sin()

    t = (sigmas < level).sum().expand(300)
    batch = Batch(true, [[]] * 300, torch.zeros(300, 6), torch.zeros(300, dtype=torch.bool))
    sigma = sigmas[t][:, None, None, None]
    shown = true + sigma * (own_errors(Net(), Words(1), batch, noise, t, sigmas) - noise)
    kept = ((shown - seen) / (true - seen)).flatten(1)
    assert (kept - kept.median(1, keepdim=True).values).abs().median() < 1e-3  # one share for all of a picture
    share = kept.median(1).values
    assert 1 / FURTHEST - 0.01 < share.min() < 0.3 and 0.9 < share.max() < 1.001


def test_own_errors_of_a_network_that_errs_in_nothing_are_none():
    torch.manual_seed(0)
    sigmas, true, noise = sample.sigma_table(), torch.randn(8, 4, 4, 6), torch.randn(8, 4, 4, 6)

    class Net(torch.nn.Module):
        def forward(self, x, t, texts, sizes):
            angle = sigmas[t].atan()[:, None, None, None]
            return angle.cos() * noise - angle.sin() * true

    batch = Batch(true, [[]] * 8, torch.zeros(8, 6), torch.zeros(8, dtype=torch.bool))
    t = torch.tensor([0, 20, 100, 300, 500, 700, 900, 999])
    assert torch.allclose(own_errors(Net(), Words(1), batch, noise, t, sigmas), noise, atol=1e-4)


def test_a_decoder_trained_on_uneven_latents_sees_them_and_its_encoder_does_not():
    vae = VAE(CONFIG)
    identity_start(vae)
    image = torch.zeros(2, 3, 64, 64)
    nothing = torch.zeros(2, 4, 8, 8)
    plain = loss_of(vae, image, nothing, encoder=False)
    assert torch.equal(plain, loss_of(vae, image, nothing, encoder=False, most=0.0))
    assert loss_of(vae, image, nothing, encoder=False, most=0.5) > plain


def test_a_low_rank_layer_starts_as_its_base_and_is_what_a_kohya_file_says():
    torch.manual_seed(0)
    for base, x in (
        (torch.nn.Linear(6, 5), torch.randn(2, 6)),
        (torch.nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 8, 8)),
    ):
        lora = companions.LowRank(base, 2)
        torch.testing.assert_close(lora(x), base(x))
        torch.nn.init.normal_(lora.lora_up.weight)
        down, up = lora.lora_down.weight.flatten(1), lora.lora_up.weight.flatten(1)
        whole = type(base)(*((6, 5) if isinstance(base, torch.nn.Linear) else (3, 5, 3, 1, 1)))
        whole.weight.data = base.weight + (up @ down).view_as(base.weight)
        whole.bias.data = base.bias
        torch.testing.assert_close(lora(x), whole(x), rtol=1e-4, atol=1e-5)


def test_pixel_art_is_made_of_flat_blocks():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    blocks = companions.pixelated(pixels).reshape(4, 16, 4, 16, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


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
    words = Words(206)
    torch.manual_seed(0)
    compact = CLIPText(CLIPConfig(width=32, layers=2, mlp_width=64, vocabulary=words.size, projection=32))
    full = CLIPText(CLIPConfig(width=32, layers=2, mlp_width=64, projection=32))
    table = "text_model.embeddings.token_embedding.weight"
    tensors = dict(compact.state_dict())
    tensors[table] = full_table(tensors[table], words.known)
    full.load_state_dict(tensors)
    text = "a xylophone and a red apple on a blue background"  # "xylophone" is in no caption: the unknown word's row
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
    latents = sample.sample(OnlyOne(), context, pooled, size=(64, 64), seeds=[0, 1], steps=12, guidance=1.0)
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


@pytest.mark.parametrize("script", ["prepare", "train_vae", "encode", "train_unet", "export", "evaluate", "companions"])
def test_every_script_starts_from_any_folder(script, tmp_path):
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(TOOLS / f"{script}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and "--work" in done.stdout, done.stderr
