"""Products in int8 against integers that numpy sums exactly, then scales."""

import numpy as np
import pytest
import torch

from core.models.int8 import LARGEST, fits, has_int8_units, int8_linear, int8_works, quantised

EPS = {torch.float32: 2**-22, torch.bfloat16: 2**-8, torch.float16: 2**-11}
CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not int8_works(CPU), reason="this torch has no right int8 product here")


def made(dtype=torch.float32, rows=(2, 35), inside=48, out=40, bias=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*rows, inside, generator=generator).to(dtype)
    weight = torch.randint(-LARGEST, LARGEST + 1, (out, inside), dtype=torch.int8, generator=generator)
    scale = (torch.rand(out, generator=generator) / 100 + 0.001).to(dtype)
    return x, weight, scale, torch.randn(out, generator=generator).to(dtype) if bias else None


def closed_form(x, weight, scale, bias):
    """In float64, but for the division by the step, whose rounding decides on which side of a half a number lies."""
    values = x.float().numpy()
    largest = np.abs(values).max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.where(largest > 0, np.rint(values * (np.float32(LARGEST) / largest)), 0).astype(np.int64)
    sums = numbers @ weight.numpy().astype(np.int64).T
    result = sums * (largest.astype(np.float64) / LARGEST) * scale.double().numpy()
    return torch.from_numpy(result + (0 if bias is None else bias.double().numpy()))


def check(result, x, weight, scale, bias):
    exact = closed_form(x, weight, scale, bias)
    assert result.dtype == x.dtype and result.shape == exact.shape
    # A rounding of the result, and those of three operations in float32 on what is added.
    slack = exact.abs() * EPS[x.dtype] + (exact.abs() + (0 if bias is None else bias.double().abs())) * 2**-21
    assert ((result.double() - exact).abs() <= slack).all()


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("rows", [(2, 35), (70,), (1,), (3, 1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_scaled_product_of_integers_to_rounding_of_the_result(dtype, rows, bias):
    given = made(dtype, rows, bias=bias)
    check(int8_linear(*given), *given)


@pytest.mark.parametrize(("inside", "out"), [(1, 1), (7, 5), (33, 130), (320, 8)])
def test_any_width_will_do_on_a_cpu(inside, out):
    given = made(inside=inside, out=out)
    check(int8_linear(*given), *given)


def test_sums_are_exact_where_float32_would_round():
    x, weight = torch.ones(32, 4096), torch.full((8, 4096), LARGEST, dtype=torch.int8)
    weight[:, 0] = LARGEST - 1  # 4096 * 127 * 127 - 127 has 26 bits
    numbers, steps = quantised(x)
    assert torch.equal(numbers, torch.full_like(numbers, LARGEST))
    result = int8_linear(x.double(), weight, torch.ones(8), None)
    wanted = (4096 * LARGEST - 1) * LARGEST * steps.double()
    assert ((result - wanted).abs() <= wanted * 2**-22).all()


def test_rows_of_zeros_give_the_bias():
    x, weight, scale, bias = made()
    x[1, 3] = 0
    x[0, :2] = 0
    result = int8_linear(x, weight, scale, bias)
    assert torch.equal(result[1, 3], bias) and torch.equal(result[0, 1], bias)
    check(result, x, weight, scale, bias)


def test_one_huge_number_costs_its_own_row_only():
    x, weight, scale, bias = made(torch.bfloat16)
    plain = int8_linear(x, weight, scale, bias)
    x[1, 4, 5] = 30000.0
    result = int8_linear(x, weight, scale, bias)
    check(result, x, weight, scale, bias)
    others = torch.ones(2, 35, dtype=torch.bool)
    others[1, 4] = False
    assert torch.equal(result[others], plain[others])
    wanted = 30000.0 * weight[:, 5].double() * scale.double() + bias.double()  # below half a step, the others are zeros
    assert ((result[1, 4].double() - wanted).abs() <= wanted.abs() * 2**-7 + 2**-7).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad):
    x, weight, scale, bias = made()
    x[0, 2, 1] = bad
    result = int8_linear(x, weight, scale, bias)
    assert not torch.isfinite(result[0, 2]).any()
    assert torch.isfinite(result[1]).all()


@pytest.mark.parametrize("dtype", EPS)
def test_the_result_is_the_same_in_any_pieces_and_any_company(dtype):
    x, weight, scale, bias = made(dtype, rows=(2, 163))
    whole = int8_linear(x, weight, scale, bias, piece=2**30)
    for piece in (1, 48 * 50, 48 * 100, None):
        assert torch.equal(int8_linear(x, weight, scale, bias, piece=piece), whole)
    assert torch.equal(int8_linear(x[1:, 5:], weight, scale, bias), whole[1:, 5:])
    assert torch.equal(int8_linear(x[1, 7], weight, scale, bias), whole[1, 7])
    strided = x.transpose(0, 1)
    assert torch.equal(int8_linear(strided, weight, scale, bias), whole.transpose(0, 1))


def test_a_step_is_a_127th_of_the_largest_number():
    """Of a uniform row: an error of 1/sqrt(12) of a step against a spread of 127/sqrt(3) steps."""
    x = torch.rand(64, 4096, generator=torch.Generator().manual_seed(0)) * 2 - 1
    numbers, steps = quantised(x)
    assert numbers.abs().amax(1).eq(LARGEST).all()
    assert ((numbers * steps - x).norm() / x.norm()).item() == pytest.approx(0.5 / LARGEST, rel=0.02)


def test_cuda_gets_shapes_that_it_takes():
    def on(device, rows, inside, out):
        with torch.device("meta"):
            x, weight = torch.empty(rows, inside), torch.empty(out, inside)
        return fits(x.to(device) if device == "cpu" else x, weight)

    assert on("meta", 17, 64, 8) and on("meta", 2048, 1280, 10240)
    assert not on("meta", 16, 64, 8) and not on("meta", 64, 60, 8) and not on("meta", 64, 64, 9)
    x = torch.empty(1, 7)
    assert fits(x, torch.empty(5, 7)) and not fits(x[:0], torch.empty(5, 7))


@pytest.mark.parametrize("wrong", ["missing", "saturating", "float"])
def test_a_product_that_is_missing_or_wrong_is_found_out(monkeypatch, wrong):
    def product(a, b):
        if wrong == "missing":
            raise NotImplementedError("no such operator")
        sums = a.int() @ b.int()
        # As on processors that add two products in 16 bits.
        return sums.clamp(-(2**15) * 32, 2**15 * 16) if wrong == "saturating" else sums.float()

    monkeypatch.setattr(torch, "_int_mm", product)
    assert not int8_works.__wrapped__(CPU)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: a.int() @ b.int())
    assert int8_works.__wrapped__(CPU)


@pytest.mark.parametrize(("unit", "has"), [("avx512_vnni", True), ("amx_int8", True), ("avx512_f", False)])
def test_units_are_those_that_the_processor_names(monkeypatch, unit, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_int8": False, unit: True})
    assert has_int8_units() is has
