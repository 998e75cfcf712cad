"""Budgets and 8-bit storage from flags, environment and file to the device."""

from pathlib import Path

import pytest
import torch

from core import device as device_module
from core.arguments import COSTS, MEMORY_MODES, parse
from core.config import Config
from core.device import STORAGE, DeviceChoice, choose_device, describe
from core.errors import BadConfig
from core.models.int8 import has_int8_units, int8_works

GIB = 2**30


def load(root: Path, *flags: str, environ: dict[str, str] | None = None) -> Config:
    return Config.load(vars(parse(list(flags))), environ or {}, root)


@pytest.mark.parametrize(
    ("flags", "budget"),
    [
        ((), None),
        (("--always-gpu",), None),
        (("--always-high-vram",), None),
        (("--always-normal-vram",), None),
        (("--always-low-vram",), 4.0),
        (("--always-no-vram",), 1.0),
        (("--memory-budget", "6.5"), 6.5),
        (("--memory-budget", "auto"), None),
    ],
)
def test_the_references_memory_modes_are_budgets(tmp_path: Path, flags: tuple[str, ...], budget: float | None) -> None:
    assert load(tmp_path, *flags).memory_budget == budget


@pytest.mark.parametrize("one", [*MEMORY_MODES, "--always-cpu"])
def test_memory_modes_exclude_each_other(one: str, capsys: pytest.CaptureFixture[str]) -> None:
    """app.md 6.2: the five of them and --always-cpu."""
    for other in {*MEMORY_MODES, "--always-cpu"} - {one}:
        with pytest.raises(SystemExit):
            parse([one, other])
        assert "not allowed with" in capsys.readouterr().err


def test_offloading_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert not load(tmp_path).offload and not load(tmp_path, "--disable-offload-from-vram").offload
    assert load(tmp_path, "--always-offload-from-vram").offload
    with pytest.raises(SystemExit):
        parse(["--always-offload-from-vram", "--disable-offload-from-vram"])


@pytest.mark.parametrize(
    ("flag", "part", "value"),
    [
        ("--unet-in-fp8-e4m3fn", "unet", "fp8"),
        ("--unet-in-fp8-e5m2", "unet", "fp8-e5m2"),
        ("--unet-in-int8", "unet", "int8"),
        ("--clip-in-fp8-e4m3fn", "clip", "fp8"),
        ("--clip-in-fp8-e5m2", "clip", "fp8-e5m2"),
    ],
)
def test_flags_for_8_bits(tmp_path: Path, flag: str, part: str, value: str) -> None:
    assert getattr(load(tmp_path, flag), f"{part}_precision") == value
    assert getattr(load(tmp_path, flag, "--all-in-fp32"), f"{part}_precision") == value


def test_a_budget_comes_from_file_and_environment_too_and_must_be_a_number(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"memory_budget": 8, "unet_precision": "int8", "offload": true}')
    config = load(tmp_path)
    assert (config.memory_budget, config.unet_precision, config.offload) == (8.0, "int8", True)
    assert load(tmp_path, environ={"EASEL_MEMORY_BUDGET": "2.5"}).memory_budget == 2.5
    for wrong in ("0", "-1", "nan", "much"):
        with pytest.raises(BadConfig, match=r"--memory-budget is .* auto, or gibibytes"):
            load(tmp_path, "--memory-budget", wrong)
    with pytest.raises(BadConfig, match="EASEL_VAE_PRECISION"):
        load(tmp_path, environ={"EASEL_VAE_PRECISION": "int8"})


def test_the_device_carries_the_budget_in_bytes() -> None:
    assert choose_device(DeviceChoice(device="cpu", memory_budget=1.5, offload=True)).memory_budget == 1.5 * GIB
    assert choose_device(DeviceChoice(device="cpu")).memory_budget is None


@pytest.mark.parametrize("name", STORAGE)
def test_8_bits_are_for_keeping_and_the_network_computes_as_it_would_without(name: str) -> None:
    plain = choose_device(DeviceChoice(device="cpu"))
    device = choose_device(DeviceChoice(device="cpu", unet_precision=name))
    assert device.unet_dtype == plain.unet_dtype and device.unet_storage == STORAGE[name]
    assert f"stored in {name}" in describe(device).unet and plain.unet_storage is None
    assert "stored" not in describe(plain).unet


needs_int8 = pytest.mark.skipif(
    not (int8_works(torch.device("cpu")) and has_int8_units()), reason="needs a CPU with int8 units"
)


def test_int8_linears_are_off_unless_flag_variable_or_file_say_otherwise(tmp_path: Path) -> None:
    assert not load(tmp_path).int8_linears and not load(tmp_path, "--unet-in-int8").int8_linears
    assert load(tmp_path, "--int8-linears").int8_linears
    assert load(tmp_path, environ={"EASEL_INT8_LINEARS": "true"}).int8_linears
    (tmp_path / "config.json").write_text('{"int8_linears": true}')
    assert load(tmp_path).int8_linears


@needs_int8
@pytest.mark.parametrize("precision", ["auto", "int8", "bf16", "fp32"])
def test_int8_linears_keep_the_weights_in_int8_and_compute_the_rest_as_asked(precision: str) -> None:
    device = choose_device(DeviceChoice(device="cpu", unet_precision=precision, int8_linears=True))
    assert device.int8_linears and device.unet_storage == torch.int8 and not device.warnings
    assert device.unet_dtype == choose_device(DeviceChoice(device="cpu", unet_precision=precision)).unet_dtype
    assert describe(device).unet.endswith("weights stored in int8, linear layers multiplied in int8")
    assert "multiplied" not in describe(choose_device(DeviceChoice(device="cpu", unet_precision="int8"))).unet


def test_int8_linears_and_fp8_weights_exclude_each_other() -> None:
    with pytest.raises(BadConfig, match="int8_linears is on, and unet_precision is 'fp8'"):
        choose_device(DeviceChoice(device="cpu", unet_precision="fp8", int8_linears=True))


def test_without_a_right_int8_product_the_flag_is_refused_and_what_to_do_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "has_int8_units", lambda: True)
    monkeypatch.setattr(device_module, "int8_works", lambda device: False)
    with pytest.raises(BadConfig, match=r"missing or wrong on cpu; .* was wanted\. Take --unet-in-int8"):
        choose_device(DeviceChoice(device="cpu", int8_linears=True))


def test_a_processor_without_int8_units_keeps_the_weights_in_int8_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "has_int8_units", lambda: False)
    device = choose_device(DeviceChoice(device="cpu", int8_linears=True))
    assert device.unet_storage == torch.int8 and not device.int8_linears
    (warning,) = device.warnings
    assert "no units for int8 products" in warning and "int8_linears" in warning


def test_text_encoders_are_kept_in_8_bits_and_compute_in_32_anyway() -> None:
    device = choose_device(DeviceChoice(device="cpu", clip_precision="fp8"))
    assert device.text_dtype == torch.float8_e4m3fn


def test_help_tells_what_each_lesser_precision_costs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for (part, precision), cost in COSTS.items():
        flag = f"--{part}-in-{'fp8-e4m3fn' if precision == 'fp8' else precision}"
        *_, words = told.split(f"{flag} ")
        assert words.partition(" --")[0].endswith(f"in {precision}: {cost} (docs/memory.md)")
