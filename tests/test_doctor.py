"""The doctor: what is fine is said, what is wrong carries an advice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core import doctor
from core.config import Config
from core.doctor import Finding, examine, told
from core.port import port_trouble


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
