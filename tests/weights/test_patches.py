"""Each kind of patch against its formula, written out here in float64, number by number or as a product of whole matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.weights.lora_format import grouped
from core.weights.patches import Patch, PatchFile

CPU = torch.device("cpu")


@pytest.fixture
def patch_of(tmp_path):
    """A Patch from tensors named by ending, as a file gives it."""

    def patch_of(**tensors):
        path = tmp_path / "lora.safetensors"
        save_file({f"K.{name.replace('__', '.')}": tensor.contiguous() for name, tensor in tensors.items()}, path)
        file = PatchFile(path)
        keys, unknown = grouped(file.header.tensors)
        assert not unknown
        return Patch(file.stamp, "K", keys["K"].kind, keys["K"].used(), file)

    return patch_of


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def changed(patch, weight, strength=1.0):
    assert patch.fits(tuple(weight.shape))
    before = weight.clone()
    after = patch.apply(weight.clone(), strength)
    torch.testing.assert_close(weight, before, rtol=0, atol=0)
    return after.numpy()


def close(ours, truth):
    np.testing.assert_allclose(ours, truth, rtol=2e-5, atol=2e-6)


def double(tensor):
    return tensor.numpy().astype(np.float64)


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.7, 2.5])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_lora_adds_the_product_of_its_matrices_times_alpha_by_rank(patch_of, strength, alpha):
    weight, up, down = random(6, 10), random(6, 4), random(4, 10)
    patch = patch_of(lora_up__weight=up, lora_down__weight=down, **({"alpha": torch.tensor(alpha)} if alpha else {}))
    scale = strength * (alpha / 4 if alpha else 1.0)
    close(changed(patch, weight, strength), double(weight) + scale * double(up) @ double(down))


def test_locon_on_a_convolution(patch_of):
    weight, up, down = random(6, 5, 3, 3), random(6, 4, 1, 1), random(4, 5, 3, 3)
    patch = patch_of(lora_up__weight=up, lora_down__weight=down, alpha=torch.tensor(1.0))
    truth = double(weight) + np.einsum("or,rikl->oikl", double(up)[:, :, 0, 0], double(down)) / 4
    close(changed(patch, weight), truth)


def test_locon_with_a_middle_kernel(patch_of):
    """down'[a, i, k, l] = sum over b of down[b, i] mid[a, b, k, l]"""
    weight, up, down, mid = random(6, 5, 3, 3), random(6, 4, 1, 1), random(4, 5, 1, 1), random(4, 4, 3, 3)
    patch = patch_of(lora_up__weight=up, lora_down__weight=down, lora_mid__weight=mid, alpha=torch.tensor(2.0))
    truth = double(weight)
    for o in range(6):
        for a in range(4):
            for b in range(4):
                for i in range(5):
                    truth[o, i] += 0.5 * double(up)[o, a, 0, 0] * double(down)[b, i, 0, 0] * double(mid)[a, b]
    close(changed(patch, weight), truth)


def test_a_matrix_fits_a_convolution_of_one_by_one(patch_of):
    weight, up, down = random(6, 10, 1, 1), random(6, 4), random(4, 10)
    truth = double(weight) + (double(up) @ double(down))[:, :, None, None]
    close(changed(patch_of(lora_up__weight=up, lora_down__weight=down), weight), truth)


def test_loha_multiplies_two_products_number_by_number(patch_of):
    weight = random(6, 5, 3, 3)
    a1, b1, a2, b2 = random(6, 3), random(3, 45), random(6, 3, seed=1), random(3, 45, seed=1)
    patch = patch_of(hada_w1_a=a1, hada_w1_b=b1, hada_w2_a=a2, hada_w2_b=b2, alpha=torch.tensor(1.5))
    product = (double(a1) @ double(b1)) * (double(a2) @ double(b2))
    close(changed(patch, weight, 0.8), double(weight) + 0.8 * 1.5 / 3 * product.reshape(6, 5, 3, 3))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)])
def test_loha_whose_factors_have_the_shape_of_a_convolution(patch_of, kernel):
    """As OneTrainer writes them: a (out, r, 1, 1) and b (r, in, kernel)."""
    weight, parts, product = random(12, 8, *kernel), {}, np.ones((12, 8, *kernel))
    for n in (1, 2):
        a, b = random(12, 2, 1, 1, seed=n), random(2, 8, *kernel, seed=n)
        parts |= {f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        product *= np.einsum("or,rikl->oikl", double(a)[:, :, 0, 0], double(b))
    close(changed(patch_of(**parts, alpha=torch.tensor(1.5)), weight, -0.6), double(weight) - 0.6 * 1.5 / 2 * product)


def test_loha_with_kernels(patch_of):
    """M[p, r, k, l] = sum over i, j of t[i, j, k, l] b[j, r] a[i, p]"""
    weight, parts, product = random(6, 5, 3, 3), {}, np.ones((6, 5, 3, 3))
    for n in (1, 2):
        t, a, b = random(2, 2, 3, 3, seed=n), random(2, 6, seed=n), random(2, 5, seed=n)
        parts |= {f"hada_t{n}": t, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        half = np.zeros((6, 5, 3, 3))
        for i in range(2):
            for j in range(2):
                half += double(t)[i, j] * double(a)[i][:, None, None, None] * double(b)[j][None, :, None, None]
        product *= half
    close(changed(patch_of(**parts, alpha=torch.tensor(2.0)), weight), double(weight) + product)


@pytest.mark.parametrize("first", ["whole", "product"])
@pytest.mark.parametrize("second", ["whole", "product", "kernel"])
def test_lokr_is_a_kronecker_product_scaled_only_if_a_factor_is_a_product(patch_of, first, second):
    parts, scale = {"alpha": torch.tensor(1.0)}, 1.0
    if first == "whole":
        parts["lokr_w1"] = one = random(2, 3)
    else:
        parts |= {"lokr_w1_a": random(2, 4), "lokr_w1_b": random(4, 3)}
        one, scale = parts["lokr_w1_a"] @ parts["lokr_w1_b"], 1 / 4
    if second == "whole":
        parts["lokr_w2"] = two = random(3, 5)
    elif second == "product":
        parts |= {"lokr_w2_a": random(3, 2), "lokr_w2_b": random(2, 5)}
        two, scale = parts["lokr_w2_a"] @ parts["lokr_w2_b"], 1 / 2
    else:
        parts |= {"lokr_t2": random(2, 2, 3, 3), "lokr_w2_a": random(2, 3), "lokr_w2_b": random(2, 5)}
        two = torch.zeros(3, 5, 3, 3)
        for i in range(2):
            for j in range(2):
                a, b = parts["lokr_w2_a"][i], parts["lokr_w2_b"][j]
                two += parts["lokr_t2"][i, j] * a[:, None, None, None] * b[None, :, None, None]
        scale = 1 / 2
    weight = random(6, 15, *two.shape[2:])
    truth = double(weight)
    for p in range(2):
        for q in range(3):
            truth[3 * p : 3 * p + 3, 5 * q : 5 * q + 5] += scale * double(one)[p, q] * double(two)
    close(changed(patch_of(**parts), weight), truth)


def test_glora_goes_through_the_weight_itself(patch_of):
    weight = random(6, 10)
    a1, a2, b1, b2 = random(2, 10), random(10, 2), random(2, 10, seed=1), random(6, 2)
    parts = {"a1__weight": a1, "a2__weight": a2, "b1__weight": b1, "b2__weight": b2, "alpha": torch.tensor(3.0)}
    change = double(b2) @ double(b1) + double(weight) @ double(a2) @ double(a1)
    close(changed(patch_of(**parts), weight, 0.5), double(weight) + 0.5 * 3 / 2 * change)


def glora(**shapes):
    """Tensors of these shapes by ending, and an alpha of 3."""
    tensors = {f"{slot}__weight": random(*shape, seed=n) for n, (slot, shape) in enumerate(shapes.items())}
    return tensors, {"alpha": torch.tensor(3.0)} | tensors


def test_glora_as_lycoris_writes_it_today(patch_of):
    """b1 b2 + (W a1) a2: what comes second in older files comes first."""
    weight = random(6, 10)
    t, parts = glora(a1=(10, 2), a2=(2, 10), b1=(6, 2), b2=(2, 10))
    a1, a2, b1, b2 = map(double, t.values())
    close(changed(patch_of(**parts), weight, 0.5), double(weight) + 0.5 * 3 / 2 * (b1 @ b2 + double(weight) @ a1 @ a2))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)])
def test_glora_on_a_convolution_mixes_the_channels_at_each_place_of_the_kernel(patch_of, kernel):
    weight = random(6, 5, *kernel)
    t, parts = glora(a1=(5, 2, 1, 1), a2=(2, 5, 1, 1), b1=(6, 2, 1, 1), b2=(2, 5, *kernel))
    a1, a2, b1, b2 = map(double, t.values())
    change = np.zeros(weight.shape)
    for k in range(kernel[0]):
        for m in range(kernel[1]):
            change[:, :, k, m] = b1[:, :, 0, 0] @ b2[:, :, k, m]
            change[:, :, k, m] += double(weight)[:, :, k, m] @ a1[:, :, 0, 0] @ a2[:, :, 0, 0]
    close(changed(patch_of(**parts), weight, 0.5), double(weight) + 0.5 * 3 / 2 * change)


def test_glora_of_old_on_a_flattened_convolution(patch_of):
    weight = random(6, 5, 3, 3)
    t, parts = glora(a1=(2, 45), a2=(45, 2), b1=(2, 45), b2=(6, 2))
    a1, a2, b1, b2 = map(double, t.values())
    change = b2 @ b1 + double(weight).reshape(6, 45) @ a2 @ a1
    close(changed(patch_of(**parts), weight), double(weight) + 3 / 2 * change.reshape(6, 5, 3, 3))


@pytest.mark.parametrize(
    ("side", "inside", "older"), [(6, 2, True), (6, 2, False), (2, 6, True), (2, 6, False), (6, 6, True)]
)
def test_the_order_of_glora_is_told_by_the_weight_and_is_the_older_one_if_both_fit(patch_of, side, inside, older):
    """Of a square weight the shapes of one order are those of the other with side and rank exchanged."""
    weight = random(side, side)
    wide, high = (inside, side), (side, inside)
    t, parts = glora(a1=wide, a2=high, b1=wide, b2=high) if older else glora(a1=high, a2=wide, b1=high, b2=wide)
    a1, a2, b1, b2 = map(double, t.values())
    change = b2 @ b1 + double(weight) @ a2 @ a1 if older else b1 @ b2 + double(weight) @ a1 @ a2
    ours = changed(patch_of(**parts), weight)
    np.testing.assert_allclose(ours, double(weight) + 3 / inside * change, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("ending", ["diff", "w_norm"])
def test_a_full_difference_is_added(patch_of, ending):
    weight, change = random(6, 5), random(6, 5, seed=9)
    close(changed(patch_of(**{ending: change}), weight, -1.5), double(weight) - 1.5 * double(change))


def test_a_whole_weight_is_gone_to_by_its_strength(patch_of):
    weight, other = random(6, 5), random(6, 5, seed=9)
    close(changed(patch_of(set_weight=other), weight, 0.25), 0.75 * double(weight) + 0.25 * double(other))


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("layout", ["peft", "rows", "columns"])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_q08_dora_gives_rows_or_columns_their_trained_lengths(patch_of, strength, layout, kernel):
    """W' = m (W + BA) / |W + BA| at strength 1 (Liu et al. 2024, equation 5), and in between along a line."""
    weight, up, down = random(6, 6, *kernel), random(6, 4), random(4, 6, *kernel)
    up = up.reshape(6, 4, *[1] * len(kernel))
    length = random(6).abs() + 1
    names = {"peft": "lora_magnitude_vector", "rows": "dora_scale", "columns": "dora_scale"}
    ones = [1] * len(kernel)
    shapes = {"peft": (1, 6, *ones) if kernel else (6,), "rows": (6, 1, *ones), "columns": (1, 6, *ones)}
    patch = patch_of(
        lora_up__weight=up, lora_down__weight=down, alpha=torch.tensor(2.0),
        **{names[layout]: length.reshape(shapes[layout])},
    )  # fmt: skip
    whole = double(weight) + np.einsum("or,ri...->oi...", double(up).reshape(6, 4), double(down)) / 2
    others = tuple(i for i in range(whole.ndim) if i != (1 if layout == "columns" else 0))
    sized = [-1 if i not in others else 1 for i in range(whole.ndim)]
    trained = whole / np.sqrt((whole**2).sum(axis=others, keepdims=True)) * double(length).reshape(sized)
    close(changed(patch, weight, strength), double(weight) + strength * (trained - double(weight)))


@pytest.mark.parametrize("strength", [1.0, -0.6])
@pytest.mark.parametrize(
    "shapes",
    [
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 10)},
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 10), "dora_scale": (6, 1)},
        {"hada_w1_a": (6, 2), "hada_w1_b": (2, 10), "hada_w2_a": (6, 2), "hada_w2_b": (2, 10)},
        {"a1__weight": (10, 2), "a2__weight": (2, 10), "b1__weight": (6, 2), "b2__weight": (2, 10)},
        {"diff": (6, 10)},
        {"set_weight": (6, 10)},
    ],
)
def test_a_patch_of_a_transposed_weight_does_the_same_the_other_way_round(patch_of, shapes, strength):
    patch = patch_of(**{name: random(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())})
    other = replace(patch, transposed=True)
    weight = random(6, 10)
    close(changed(other, weight.T, strength), changed(patch, weight, strength).T)
    close(changed(other, weight.T.contiguous(), strength), changed(patch, weight, strength).T)
    if factors := other.factors(CPU):
        up, down, scale = factors
        close((weight.T + strength * scale * up @ down).numpy(), changed(patch, weight, strength).T)


def test_where_a_key_has_several_kinds_the_later_one_counts(patch_of):
    weight, change = random(6, 5), random(6, 5, seed=9)
    patch = patch_of(lora_up__weight=random(6, 2), lora_down__weight=random(2, 5), diff=change)
    assert patch.kind == "difference"
    close(changed(patch, weight), double(weight) + double(change))


@pytest.mark.parametrize(
    "shapes",
    [
        {"lora_up__weight": (6, 2), "lora_down__weight": (3, 5)},
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 7)},
        {"lora_up__weight": (5, 2), "lora_down__weight": (2, 6)},
        {"lora_up__weight": (6, 0), "lora_down__weight": (0, 5)},
        {"lora_up__weight": (6,), "lora_down__weight": (5,)},
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 5), "alpha": (3,)},
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 5), "dora_scale": (7,)},
        {"lora_up__weight": (6, 2), "lora_down__weight": (2, 5), "lora_mid__weight": (2, 2, 3, 3)},
        {"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 4)},
        {"hada_w1_a": (6, 2, 1, 1), "hada_w1_b": (2, 5, 3, 3), "hada_w2_a": (6, 2, 1, 1), "hada_w2_b": (2, 5, 3, 3)},
        {"hada_w1_a": (6, 0, 1, 1), "hada_w1_b": (0, 5, 1, 1), "hada_w2_a": (6, 0, 1, 1), "hada_w2_b": (0, 5, 1, 1)},
        {"lokr_w1": (2, 2), "lokr_w2": (3, 3)},
        {"lokr_w1": (), "lokr_w2": (3, 3)},
        {"a1__weight": (2, 5), "a2__weight": (4, 2), "b1__weight": (2, 5), "b2__weight": (6, 2)},
        {"a1__weight": (2, 1), "a2__weight": (5, 2), "b1__weight": (2, 5), "b2__weight": (6, 2)},
        {"a1__weight": (2, 5), "a2__weight": (2, 5), "b1__weight": (6, 2), "b2__weight": (2, 5)},
        {"a1__weight": (5, 2), "a2__weight": (2, 5), "b1__weight": (6, 2), "b2__weight": (2, 4)},
        {"a1__weight": (5, 2), "a2__weight": (2, 5), "b1__weight": (5, 2), "b2__weight": (2, 6)},
        {"a1__weight": (5, 0), "a2__weight": (0, 5), "b1__weight": (6, 2), "b2__weight": (2, 5)},
        {"a1__weight": (2,), "a2__weight": (5,), "b1__weight": (6,), "b2__weight": (5,)},
        {"diff": (5, 6)},
        {"set_weight": (6, 4)},
    ],
)
def test_what_does_not_fit_a_weight_is_known_before_any_tensor_is_read(patch_of, shapes):
    patch = patch_of(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    assert not patch.fits((6, 5))
    assert patch.file._file is None


def test_factors_are_the_patch_for_what_can_go_row_by_row_and_nothing_else(patch_of):
    weight, up, down = random(6, 5), random(6, 2), random(2, 5)
    patch = patch_of(lora_up__weight=up, lora_down__weight=down, alpha=torch.tensor(1.0))
    ours_up, ours_down, scale = patch.factors(CPU)
    close(changed(patch, weight), double(weight + scale * ours_up @ ours_down))
    assert patch_of(lora_up__weight=up, lora_down__weight=down, dora_scale=torch.ones(6)).factors(CPU) is None
    assert patch_of(diff=random(6, 5)).factors(CPU) is None
