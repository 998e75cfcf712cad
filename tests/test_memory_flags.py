"""Budgets and 8-bit storage from flags, environment and file to the device."""

from pathlib import Path

import pytest
import torch

from core.arguments import MEMORY_MODES, parse
from core.config import Config
from core.device import STORAGE, DeviceChoice, choose_device, describe
from core.errors import BadConfig

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


def test_text_encoders_are_kept_in_8_bits_and_compute_in_32_anyway() -> None:
    device = choose_device(DeviceChoice(device="cpu", clip_precision="fp8"))
    assert device.text_dtype == torch.float8_e4m3fn
