"""LoRA files on whole models: what fits, what is told, what is computed."""

import json

import pytest
import torch
from loras import kohya, low_rank, modules, write, write_lora
from safetensors.torch import load_file
from tiny import write_checkpoint

from core.errors import BadModelFile, ModelNotFound
from core.models.configs import SD15, TINY
from core.models.unet import UNet
from core.settings import Lora
from core.weights.checkpoint import load_checkpoint
from core.weights.files import Files
from core.weights.lora import Loras, Model
from core.weights.lora_format import PeftScales
from core.weights.patches import PatchFile, stamp_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def model(path):
    checkpoint = load_checkpoint(path, unet_dtype=torch.float32)
    return Model("tiny.safetensors", checkpoint.unet, checkpoint.clip_l, checkpoint.clip_g)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def loras(folder):
    return Loras(Files([folder], "loras"))


def put(loras, model, *wanted):
    matched = loras.match(model, [Lora(*each) if isinstance(each, tuple) else Lora(each) for each in wanted])
    return loras.put(model, matched, device=CPU), list(matched.warnings)


def weights(model):
    return {
        f"{name}.{path}": p.detach().clone()
        for name, part in model.parts().items()
        for path, p in part.named_parameters()
    }


def differing(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


def trained():
    return {f"{part}.{path}.weight" for part, shapes in modules().items() for path in shapes}


def test_any_number_at_once_with_weights_below_0_and_above_1(model, folder, loras):
    """Each adds its own matrices; together they are the sum."""
    before = weights(model)
    strengths = {"a.safetensors": 1.5, "b.safetensors": -0.8, "sub/c.safetensors": 0.25}
    (folder / "sub").mkdir()
    total = dict.fromkeys(trained(), 0.0)
    for seed, (name, strength) in enumerate(strengths.items()):
        write_lora(folder / name, seed=seed)
        put(loras, model, (name, strength))
        after = weights(model)
        total = {key: total[key] + after[key].double() - before[key].double() for key in total}
    put(loras, model, *strengths.items())
    together = weights(model)
    assert differing(together, before) == trained()
    for name in trained():
        limit = 2e-6 if name.startswith("unet") else 2e-3  # the text encoders of this file are in fp16
        torch.testing.assert_close(together[name].double() - before[name].double(), total[name], rtol=limit, atol=limit)
    put(loras, model)
    assert not differing(weights(model), before)


def test_the_same_list_computes_and_reads_nothing(model, folder, loras, monkeypatch):
    write_lora(folder / "a.safetensors")
    first, _ = put(loras, model, ("a.safetensors", 0.5))
    monkeypatch.setattr(PatchFile, "__init__", lambda *_: 1 / 0)
    monkeypatch.setattr(PatchFile, "tensor", lambda *_: 1 / 0)
    again, warnings = put(loras, model, ("a.safetensors", 0.5))
    assert again == first and not warnings


def test_disabled_none_and_weight_0_are_not_even_opened(model, folder, loras):
    (folder / "broken.safetensors").write_bytes(b"nothing")
    before = weights(model)
    identity, warnings = put(loras, model, ("broken.safetensors", 1.0, False), ("broken.safetensors", 0.0), "None", "")
    assert identity == () and not warnings and not differing(weights(model), before)


def test_a_file_that_changed_is_read_again(model, folder, loras):
    write_lora(folder / "a.safetensors", seed=0)
    first, _ = put(loras, model, "a.safetensors")
    before = weights(model)
    write_lora(folder / "a.safetensors", seed=1)
    second, _ = put(loras, model, "a.safetensors")
    assert second != first
    assert differing(weights(model), before) == trained()


def test_the_identity_tells_what_lies_on_the_text_encoders_and_nothing_else(model, folder, loras):
    write_lora(folder / "whole.safetensors")
    write_lora(folder / "network.safetensors", text=False, seed=1)
    plain, _ = put(loras, model)
    network, _ = put(loras, model, "network.safetensors")
    whole, _ = put(loras, model, "whole.safetensors", "network.safetensors")
    weaker, _ = put(loras, model, ("whole.safetensors", 0.5))
    back, _ = put(loras, model, "whole.safetensors", ("network.safetensors", 2.0))
    assert plain == network and whole == back
    assert len({plain, whole, weaker}) == 3


def test_q08_what_does_not_fit_is_counted_by_kind_and_told_once(model, folder, loras):
    generator = torch.Generator().manual_seed(0)
    up, down = low_rank((8, 8), 2, generator)
    odd = next(iter(modules()["unet"]))
    extra = {
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": up,
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": down,
        "lora_unet_input_blocks_99_0_emb_layers_1.alpha": torch.tensor(1.0),
        "lora_unet_middle_block_1_proj_in.lora_up.weight": up,
        "lora_unet_middle_block_1_proj_in.lora_down.weight": down,
        "lora_unet_middle_block_1_proj_out.lora_up.weight": up,
        f"{kohya('unet', odd)}.oft_blocks": up,
        f"{kohya('unet', odd)}.other.oft_blocks": up,
        f"{kohya('unet', odd)}.third.oft_blocks": up,
    }
    write_lora(folder / "odd.safetensors", extra=extra)
    _, [warning] = put(loras, model, "odd.safetensors")
    total = 3 * len(trained()) + len(extra)
    assert warning.startswith(
        f"odd.safetensors: 9 of {total} tensors fit nothing in tiny.safetensors and were left out: "
    )
    for words in (
        "3 of the unknown kind 'oft_blocks' (such as ",
        "2 for a text encoder (such as lora_te3_text_model_encoder_layers_0_mlp_fc1.lora_",
        "1 for the network (such as lora_unet_input_blocks_99_0_emb_layers_1.alpha)",
        "2 of a shape that does not fit (such as lora_unet_middle_block_1_proj_in.lora_",
        "1 without the others that belong to them (such as lora_unet_middle_block_1_proj_out.lora_up.weight)",
    ):
        assert words in warning
    assert put(loras, model, "odd.safetensors")[1] == []
    put(loras, model)
    assert len(put(loras, model, "odd.safetensors")[1]) == 1  # it joined the list anew


def test_q08_a_file_that_fits_nothing_is_an_error_that_names_it_and_changes_nothing(model, folder, loras):
    write_lora(folder / "good.safetensors")
    write(folder / "other.safetensors", {"double_blocks.0.img_attn.lora_A.weight": torch.ones(2, 8)})
    before = weights(model)
    with pytest.raises(
        BadModelFile, match=r"other\.safetensors does nothing with tiny\.safetensors: none of its 1 tensors"
    ):
        put(loras, model, "good.safetensors", "other.safetensors")
    assert not differing(weights(model), before)


def test_a_lora_of_another_family_is_an_error_though_some_of_its_names_and_shapes_fit(model, folder, loras):
    """SD 1.x has attentions of the same names and widths; only what reads the text differs."""
    other = UNet(TINY.__class__(**{**vars(TINY), "context_dim": 48}))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for path, p in other.named_parameters():
        if ".attn" in path and path.endswith("weight"):
            up, down = low_rank(tuple(p.shape), 2, generator)
            key = kohya("unet", path.removesuffix(".weight"))
            tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    write(folder / "sd15.safetensors", tensors)
    with pytest.raises(BadModelFile, match=r"sd15\.safetensors was made for a model of another family"):
        put(loras, model, "sd15.safetensors")


@pytest.fixture
def refiner():
    sd15 = SD15.__class__(**{**vars(SD15), "model_channels": 32, "context_dim": 64})
    return Model("sd15.safetensors", UNet(sd15).requires_grad_(False), refines=True)


def put_on_both(loras, model, refiner, *names):
    """The warnings, and which weights of each changed."""
    before = weights(model), weights(refiner)
    matched = loras.match(model, [Lora(name) for name in names], refiner=refiner)
    for each in (model, refiner):
        loras.put(each, matched, device=CPU)
    return list(matched.warnings), differing(weights(model), before[0]), differing(weights(refiner), before[1])


def test_q08_a_lora_acts_where_it_fits_and_the_user_is_told_once_where_that_is(model, refiner, folder, loras):
    """19.1: the refiner gets the same list. Of text encoders a refiner's LoRA changes none, whatever fits there."""
    config = refiner.unet.config
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}
    write_lora(folder / "refiner.safetensors", config=config, text=False, extra=text)
    write_lora(folder / "base.safetensors")
    told, base, refined = put_on_both(loras, model, refiner, "refiner.safetensors")
    assert not base and refined == {f"unet.{path}.weight" for path in modules(config)["unet"]}
    assert told[1:] == ["refiner.safetensors acts on the refiner only: it does not fit tiny.safetensors."]
    assert told[0].startswith("refiner.safetensors: 1 of ") and "fit nothing in sd15.safetensors" in told[0]
    told, base, refined = put_on_both(loras, model, refiner, "refiner.safetensors", "base.safetensors")
    assert told == ["base.safetensors acts on the base model only: it does not fit the refiner sd15.safetensors."]
    assert base == trained() and not refined
    assert put_on_both(loras, model, refiner, "refiner.safetensors", "base.safetensors")[0] == []


def test_a_lora_that_fits_neither_model_is_an_error_and_so_is_one_of_the_refiner_for_the_base_alone(
    model, refiner, folder, loras
):
    write_lora(folder / "third.safetensors", config=TINY.__class__(**{**vars(TINY), "context_dim": 48}), text=False)
    with pytest.raises(BadModelFile, match=r"other sizes than tiny\.safetensors and sd15\.safetensors\."):
        put_on_both(loras, model, refiner, "third.safetensors")
    write_lora(folder / "refiner.safetensors", config=refiner.unet.config, text=False)
    one = Lora("refiner.safetensors")
    for lists in (([], [one]), ([one], [one])):
        with pytest.raises(BadModelFile, match=r"other sizes than tiny\.safetensors\."):
            loras.match(model, *lists, refiner=refiner)


def test_a_lora_of_text_encoders_alone_does_not_miss_the_refiner(model, refiner, folder, loras):
    generator = torch.Generator().manual_seed(0)
    up, down = low_rank((64, 64), 2, generator)
    key = kohya("clip_l", next(path for path in modules()["clip_l"] if path.endswith("q_proj")))
    write(folder / "text.safetensors", {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down})
    told, base, refined = put_on_both(loras, model, refiner, "text.safetensors")
    assert not told and len(base) == 1 and not refined


def test_q09_a_failed_load_is_tried_again(model, folder, loras):
    whole = write_lora(folder / "a.safetensors").read_bytes()
    before = weights(model)
    (folder / "a.safetensors").write_bytes(whole[:-50])
    for _ in range(2):
        with pytest.raises(BadModelFile, match=r"a\.safetensors is cut off"):
            put(loras, model, "a.safetensors")
    (folder / "a.safetensors").write_bytes(whole)
    put(loras, model, "a.safetensors")
    assert differing(weights(model), before) == trained()


def test_q10_only_the_lora_folders_are_searched(model, folder, loras, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_lora(elsewhere / "here.safetensors")
    write_lora(elsewhere / "both.safetensors", seed=1)
    write_lora(folder / "both.safetensors", seed=2)
    monkeypatch.chdir(elsewhere)
    for name in ("here.safetensors", str(elsewhere / "here.safetensors"), "../elsewhere/here.safetensors"):
        with pytest.raises(ModelNotFound, match="There is no LoRA"):
            put(loras, model, name)
    identity, _ = put(loras, model, "both.safetensors")
    assert identity[0][0][0] == str(folder / "both.safetensors")


@pytest.mark.parametrize("ending", [".pt", ".ckpt", ".bin", ".safetensors"])
def test_q28_pickles_are_refused_whatever_their_name_is(model, folder, loras, ending):
    torch.save({"lora_unet_out_2.diff": torch.zeros(1)}, folder / f"a{ending}")
    with pytest.raises(BadModelFile, match=rf"a{ending} is a .*safetensors"):
        put(loras, model, f"a{ending}")


def test_biases_and_norms_are_changed_beside_their_weights(model, folder, loras):
    before = weights(model)
    tensors = {
        "lora_unet_out_0.w_norm": torch.full((32,), 0.5),
        "lora_unet_out_0.b_norm": torch.full((32,), 0.25),
        "lora_unet_out_2.diff": torch.ones_like(before["unet.out.2.weight"]),
        "lora_unet_out_2.diff_b": torch.ones(4),
        "lora_unet_input_blocks_0_0.diff_b": torch.ones(32),
    }
    write(folder / "a.safetensors", tensors)
    put(loras, model, ("a.safetensors", 2.0))
    after = weights(model)
    changes = {
        "out.0.weight": 1.0,
        "out.0.bias": 0.5,
        "out.2.weight": 2.0,
        "out.2.bias": 2.0,
        "input_blocks.0.0.bias": 2.0,
    }
    assert differing(after, before) == {f"unet.{name}" for name in changes}
    for name, change in changes.items():
        torch.testing.assert_close(after[f"unet.{name}"], before[f"unet.{name}"] + change)


PROJECTED = 40  # width of the pooled vector below; the encoder's is 96, so that nothing fits the wrong way round
PROJECTION = "lora_te2_text_projection"


def load_projecting(path, folder, dtype, spelling):
    """The checkpoint with a text projection that is not square, and that matrix (96, PROJECTED) as the file has it."""
    matrix = torch.randn(96, PROJECTED, generator=torch.Generator().manual_seed(3)).half() / 10
    tensors = load_file(path)
    del tensors["conditioner.embedders.1.model.text_projection"]
    tensors[f"conditioner.embedders.1.model.{spelling}"] = matrix.T if spelling.endswith(".weight") else matrix
    loaded = load_checkpoint(write(folder / "projecting.safetensors", tensors), text_dtype=dtype)
    return Model("projecting.safetensors", loaded.unet, loaded.clip_l, loaded.clip_g), matrix


def last_state(clip_g, ids):
    """The normed last output at the end of the text (B, 96), which the projection is multiplied with, in float64."""
    return clip_g(ids, -1, final_norm=True).hidden[torch.arange(len(ids)), ids.argmax(1)].double()


def projection_lora(rows, columns):
    """Up (rows, 4) and down (4, columns)."""
    return low_rank((rows, columns), 4, torch.Generator().manual_seed(5))


@pytest.mark.parametrize("spelling", ["text_projection", "text_projection.weight"])  # input x output, output x input
@pytest.mark.parametrize(
    "dtype", [None, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_a_lora_on_the_text_projection_changes_the_pooled_vector_as_that_of_a_linear_layer(
    path, folder, loras, dtype, spelling
):
    """In files the projection is a linear layer's weight, output x input; ours is input x output."""
    model, matrix = load_projecting(path, folder, dtype, spelling)
    before = weights(model)
    ids = torch.randint(0, 49406, (2, 77), generator=torch.Generator().manual_seed(4))
    plain = model.clip_g(ids).pooled
    up, down = projection_lora(PROJECTED, 96)
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}
    write(folder / "a.safetensors", {f"{PROJECTION}.{ending}": tensor for ending, tensor in tensors.items()})
    identity, warnings = put(loras, model, ("a.safetensors", 0.7))
    assert identity and not warnings
    assert differing(weights(model), before) == {"clip_g.text_projection"}
    linear = matrix.T.double() + 0.7 * 2 / 4 * up.double() @ down.double()
    truth, error = last_state(model.clip_g, ids) @ linear.T, torch.finfo(model.clip_g.text_projection.dtype).eps
    pooled = model.clip_g(ids).pooled.double()
    assert (pooled - truth).norm() / truth.norm() < error + 1e-6 < (plain - truth).norm() / truth.norm() / 10
    put(loras, model)
    assert not differing(weights(model), before)
    assert torch.equal(model.clip_g(ids).pooled, plain)


def test_a_lora_on_the_text_projection_of_another_width_is_left_out(path, folder, loras):
    """Also if it would fit the other way round."""
    model, _ = load_projecting(path, folder, None, "text_projection")
    up, down = projection_lora(96, PROJECTED)
    extra = {f"{PROJECTION}.lora_up.weight": up, f"{PROJECTION}.lora_down.weight": down}
    write_lora(folder / "a.safetensors", extra=extra)
    _, [warning] = put(loras, model, "a.safetensors")
    assert f"2 of a shape that does not fit (such as {PROJECTION}.lora_" in warning


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (f"{PROJECTION}.lora_up.weight", f"{PROJECTION}.lora_down.weight"),
        ("text_encoder_2.text_projection.lora_B.weight", "text_encoder_2.text_projection.lora_A.weight"),
        ("text_encoder_2.text_projection.lora.up.weight", "text_encoder_2.text_projection.lora.down.weight"),
        ("clip_g.transformer.text_projection.lora_up.weight", "clip_g.transformer.text_projection.lora_down.weight"),
        ("clip_g.text_projection.lora_up.weight", "clip_g.text_projection.lora_down.weight"),
    ],
)
def test_the_text_projection_is_found_in_every_spelling(path, folder, loras, up, down):
    model, matrix = load_projecting(path, folder, torch.float32, "text_projection")
    factors = projection_lora(PROJECTED, 96)
    write(folder / "a.safetensors", dict(zip((up, down), factors, strict=True)))
    assert not put(loras, model, "a.safetensors")[1]
    torch.testing.assert_close(model.clip_g.text_projection.data, matrix.float() + (factors[0] @ factors[1]).T)


def test_loha_of_onetrainer_acts_on_convolutions_and_with_dots_in_its_names(model, folder, loras):
    before, generator = weights(model), torch.Generator().manual_seed(0)
    tensors = {}
    for dotted, module in (
        ("input_blocks_1_0_in_layers.2", "input_blocks.1.0.in_layers.2"),
        ("middle_block_1_transformer_blocks_0_attn1.to_out.0", "middle_block.1.transformer_blocks.0.attn1.to_out.0"),
    ):
        rows, columns, *kernel = before[f"unet.{module}.weight"].shape
        for n in (1, 2):
            a = torch.randn(rows, 2, *[1 for _ in kernel], generator=generator)
            b = torch.randn(2, columns, *kernel, generator=generator)
            tensors |= {f"lora_unet_{dotted}.hada_w{n}_a": a, f"lora_unet_{dotted}.hada_w{n}_b": b}
        tensors[f"{kohya('unet', module)}.alpha"] = torch.tensor(1.0)
    write(folder / "a.safetensors", tensors)
    _, warnings = put(loras, model, "a.safetensors")
    assert not warnings
    assert differing(weights(model), before) == {
        "unet.input_blocks.1.0.in_layers.2.weight",
        "unet.middle_block.1.transformer_blocks.0.attn1.to_out.0.weight",
    }


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        ({}, 4, 1.0),
        ({"unet.lora_alpha": 8, "unet.r": 4}, 4, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 4, 0.5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_q": 2}}, 4, 2.0),
        ({"text_encoder.lora_alpha": 8}, 4, 1.0),
        ({"lora_alpha": 8, "r": 4}, 4, 2.0),
        ({"unet.lora_alpha": "many"}, 4, 1.0),
        ({"unet.lora_alpha": True}, 4, 1.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": []}, 4, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"block.attn1.to_q": 2, "to_q": 8}}, 4, 0.5),  # the first that fits
        ({"lora_alpha": 16, "alpha_pattern": {"^attn1.to_q": 2, "^unet.block.attn1.to_q": 8}}, 4, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"(.*)*to_q": 2}}, 4, 4.0),  # no regular expression of a file is run
        ({"alpha": 16}, 4, 4.0),  # LoHa and LoKr
        ({"alpha": 16, "r": 8}, None, 2.0),
        ({"alpha": 16, "r": 8, "rank_pattern": {"to_q": 4}}, None, 4.0),
        ({"alpha": 16}, None, 1.0),
        ({"alpha": 16, "r": 0}, None, 1.0),
        ([], 4, 1.0),
    ],
)
def test_pefts_configuration_says_what_alpha_is(folder, config, rank, scale):
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    file = PatchFile(write(folder / "a.safetensors", {"a": torch.zeros(1)}, metadata))
    assert PeftScales(file.header).scale("unet.block.attn1.to_q", rank) == scale


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"unet.lora_alpha": NaN}', '{"unet.lora_alpha": 1e999}', "\0"])
def test_a_mad_configuration_counts_as_none(folder, text):
    file = PatchFile(write(folder / "a.safetensors", {"a": torch.zeros(1)}, {"lora_adapter_metadata": text}))
    assert PeftScales(file.header).scale("unet.block.attn1.to_q", 4) == 1.0


def test_pefts_configuration_is_found_beside_the_file(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 4}))
    file = PatchFile(write(folder / "adapter_model.safetensors", {"a": torch.zeros(1)}))
    assert PeftScales(file.header).scale("unet.block.attn1.to_q", 4) == 0.5


def test_a_changed_configuration_beside_the_file_is_another_file(folder):
    path = write(folder / "adapter_model.safetensors", {"a": torch.zeros(1)})
    stamps = [stamp_of(path)]
    for alpha in (2, 16):
        (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
        stamps.append(stamp_of(path))
    assert len(set(stamps)) == 3
    (folder / "other.safetensors").write_bytes(path.read_bytes())
    other = stamp_of(folder / "other.safetensors")
    (folder / "adapter_config.json").unlink()
    assert stamp_of(folder / "other.safetensors") == other and stamp_of(path) == stamps[0]
