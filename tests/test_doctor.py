"""The doctor: what is fine is said, what is wrong carries an advice."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint

from core import doctor
from core.config import Config
from core.doctor import Finding, _torch, examine, told
from core.port import port_trouble
from core.torch_build import TorchBuild


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "requirements.txt").write_text("pytest==9\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return replace(Config.load({}, {}, tmp_path), port=port)


@pytest.fixture
def occupied() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def found(config: Config, topic: str) -> list[Finding]:
    return [finding for finding in examine(config) if finding.topic == topic]


def test_an_occupied_port_is_told_with_another_one(config: Config, occupied: int) -> None:
    (finding,) = found(replace(config, port=occupied), "Port")
    assert finding.wrong
    assert f"--port {occupied + 1}" in finding.advice
    assert not found(config, "Port")[0].wrong


def test_an_address_that_is_not_ours_is_told() -> None:
    trouble = port_trouble("192.0.2.1", 7865)  # TEST-NET-1: no machine has it
    assert trouble is not None and "--listen" in trouble


def test_models_that_may_not_be_read_hide_no_others(config: Config, unreadable: Callable[[Path], None]) -> None:
    [own] = config.checkpoints
    own.mkdir(parents=True)
    (own / "old.ckpt").write_bytes(b"PK\x03\x04")
    private = config.root / "private" / "checkpoints"
    private.mkdir(parents=True)
    unreadable(private.parent)
    findings = found(replace(config, checkpoints=(private, own)), "Model")
    assert [finding.words for finding in findings] == ["old.ckpt is a .ckpt file"]


def test_what_of_the_configuration_is_left_out_is_told(config: Config) -> None:
    assert not found(config, "Config")
    (config.root / "config.txt").write_text("{")
    (finding,) = found(Config.load({}, {}, config.root), "Config")
    assert finding.wrong and "config.txt cannot be read" in finding.words


def test_missing_packages_are_named(config: Config) -> None:
    (config.root / "requirements.txt").write_text("# comment\npytest>=1\neasel-has-no-such-package==1\n")
    wrong, fine = found(config, "Packages")
    assert "easel-has-no-such-package" in wrong.words and "launch.py" in wrong.advice
    assert "pytest" in fine.words and not fine.wrong


def test_outputs_that_cannot_be_written_are_told(config: Config) -> None:
    assert not found(config, "Outputs")[0].wrong
    (wrong,) = found(replace(config, outputs=Path("/proc/easel")), "Outputs")
    assert "--output" in wrong.advice


def test_a_full_disk_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**8})())
    (wrong,) = found(config, "Disk")
    assert "0.1 GB free" in wrong.words and wrong.advice


def test_a_drive_that_is_not_there_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    for topic, words in (("Disk", "cannot be reached"), ("Outputs", "cannot be written")):
        (wrong,) = found(config, topic)
        assert words in wrong.words and "--output DIR" in wrong.advice


def test_a_look_that_fails_does_not_end_the_examination(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken(config: Config) -> Iterator[Finding]:
        raise ValueError("a riddle")

    monkeypatch.setattr(doctor, "LOOKS", (_broken, *doctor.LOOKS))
    findings = list(examine(config))
    assert "a riddle" in findings[0].words and findings[0].wrong
    assert any(finding.topic == "Port" for finding in findings)


def test_a_problem_stands_out_and_carries_its_advice() -> None:
    assert told(Finding("Disk", "full")) == "  Disk:        full"
    assert told(Finding("Disk", "full", "Delete something.")).splitlines() == [
        "! Disk:        full",
        "               Delete something.",
    ]


def test_a_damaged_checkpoint_and_a_pickle_are_named(config: Config) -> None:
    folder = config.checkpoints[0]
    folder.mkdir(parents=True)
    (finding,) = found(config, "Models")
    assert "no checkpoint" in finding.words and str(folder) in finding.advice
    (folder / "cut.safetensors").write_bytes(b"\xff\0\0\0\0\0\0\0{")
    (folder / "old.ckpt").write_bytes(b"PK")
    damaged, pickle = found(config, "Model")
    assert "cut.safetensors" in damaged.words and damaged.wrong
    assert "old.ckpt" in pickle.words and pickle.wrong


def test_a_checkpoint_that_lacks_a_tensor_is_named(config: Config) -> None:
    folder = config.checkpoints[0]
    folder.mkdir(parents=True)
    whole = write_checkpoint(folder / "whole.safetensors")
    tensors = load_file(whole)
    del tensors["first_stage_model.decoder.conv_out.bias"]
    save_file(tensors, folder / "holed.safetensors")
    holed, fine = found(config, "Model")
    assert holed.wrong and "holed.safetensors" in holed.words and "decoder.conv_out.bias" in holed.words
    assert not fine.wrong and "whole.safetensors" in fine.words


def test_what_else_is_known_of_a_checkpoint_is_told(config: Config) -> None:
    folder = config.checkpoints[0]
    folder.mkdir(parents=True)
    write_checkpoint(folder / "tiny_turbo.safetensors")
    (finding,) = found(config, "Model")
    assert not finding.wrong and "By its name it is a Turbo checkpoint" in finding.words


def test_device_and_precision_are_told(config: Config) -> None:
    (finding,) = found(replace(config, device="cpu", unet_precision="fp32"), "Device")
    assert "cpu" in finding.words and "network in fp32" in finding.words and not finding.wrong
    (finding,) = found(replace(config, device="cpu", unet_precision="fp16"), "Device")
    assert "slower" in finding.advice


@pytest.mark.parametrize("has", [True, False])
def test_products_in_int8_are_told_or_why_there_are_none(
    config: Config, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.device.has_int8_units", lambda: has)
    monkeypatch.setattr("core.device.int8_works", lambda device: True)
    (finding,) = found(replace(config, device="cpu", int8_linears=True), "Device")
    assert "weights stored in int8" in finding.words
    assert ("linear layers multiplied in int8" in finding.words) is has
    assert ("no units for int8 products" in finding.advice) is not has
    monkeypatch.setattr("core.device.has_int8_units", lambda: True)
    monkeypatch.setattr("core.device.int8_works", lambda device: False)
    (finding,) = found(replace(config, device="cpu", int8_linears=True), "Device")
    assert "missing or wrong on cpu" in finding.words and finding.wrong


@dataclass(frozen=True)
class Card:
    name: str = "A Card"
    total_memory: int = 8 * 10**9
    major: int = 12
    minor: int = 0


@pytest.mark.parametrize(("fitting", "advice"), [("cpu", ""), ("cu126", "Install or update the driver of the GPU.")])
def test_a_torch_for_gpus_is_no_fault_of_a_machine_without_one(
    config: Config, monkeypatch: pytest.MonkeyPatch, fitting: str, advice: str
) -> None:
    monkeypatch.setattr("torch.version.cuda", "12.6")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("core.doctor.fitting_build", lambda: TorchBuild(fitting, None, "test"))
    [told] = [finding for finding in _torch(config) if finding.topic == "Torch"]
    assert told.words.endswith("but it finds no GPU") and told.advice == advice


def test_a_card_that_this_torch_does_not_know_is_told_with_the_build_that_does() -> None:
    fitting = TorchBuild("cu128", None, "test")
    assert "--torch cu128" in doctor.gpu(Card(), ["sm_50", "sm_90"], fitting).advice
    assert not doctor.gpu(Card(), ["sm_90", "sm_120"], fitting).wrong


def test_a_python_that_is_newer_than_what_easel_is_made_for_is_told(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 13, 9, "final", 0))
    assert not [finding for finding in doctor._python(config) if finding.wrong]
    monkeypatch.setattr(doctor.sys, "version_info", (3, 14, 0, "final", 0))
    [finding] = doctor._python(config)
    assert finding.advice == "Easel is made for 3.10 to 3.13; if something fails, use one of these."
