"""Each benchmark runs from end to end with tiny networks and prints its findings."""

import importlib
import json
import re

import pytest

from benchmarks.engine import TINY_FILE, TINY_METADATA
from benchmarks.weights import write_checkpoint

FIGURE = r"\d+\.\d+ (x|s|dB) best, \d+\.\d+ (x|s|dB) median"
# Name (its first word is the module) -> its own options (FOLDER holds a tiny checkpoint), the findings it prints.
COMMANDS = {
    "unet_step": (["--dtype", "fp32"], ["fp32: diffusers time / easel time"]),
    "unet_step in int8": (["--dtype", "fp32", "--int8-linears"], ["fp32: diffusers time / easel time"]),
    "vae_decode": (
        [],
        [
            "diffusers float32 time / easel time",
            "diffusers bf16 time / easel time",
            "diffusers float32 time / easel float32 time",
        ],
    ),
    "load": (
        ["--cold-rounds", "0", "--work", "FOLDER"],
        ["warm: easel time / diffusers time", "warm: easel peak memory / file size"],
    ),
    "lora": (["--work", "FOLDER"], ["switching a LoRA / one pass", "the same list again / one pass"]),
    "memory": (["--work", "FOLDER"], ["peak resident memory / file size"]),
    "storage": (
        ["--checkpoints", "FOLDER"],
        [
            "int8: relative L2 of the latent",
            "fp8: relative L2 of the latent",
            "text encoders in fp8: relative L2 of the latent",
            "image decoder in bf16: PSNR of the picture",
        ],
    ),
    "shortcuts": (
        ["--checkpoints", "FOLDER"],
        ["guidance_end 0.5: relative L2 of the latent", "step_cache 2: relative L2 of the latent"],
    ),
    "reroll": (["--checkpoints", "FOLDER"], ["press to first step begun", "press to first step done"]),
    "overhead": (
        ["--checkpoints", "FOLDER", "--starts", "1"],
        ["page until the file is written / bare pipeline", "page until the picture is shown / bare pipeline"],
    ),
    "preview": (["--checkpoints", "FOLDER"], ["time with previews / without", "making one preview"]),
    "press": ([], ["the page's own work for one press"]),
    "history": ([], ["slowest search, seen by all", "slowest search, seen by one visitor"]),
    "startup": (
        ["--checkpoints", "FOLDER"],
        ["second start to page ready", "first press to picture on disk", "later press to picture on disk"],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny checkpoint, so that each benchmark need not write its own."""
    made = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(made / TINY_FILE, tiny=True, metadata=TINY_METADATA)
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_the_benchmark_runs_and_prints_its_findings(name, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several test processes share the cores
    options, labels = COMMANDS[name]
    options = [str(folder) if option == "FOLDER" else option for option in options]
    output = tmp_path / "result.json"
    module = importlib.import_module(f"benchmarks.{name.split()[0]}")
    module.main(["--tiny", "--rounds", "1", "--output", str(output), *options])
    printed = capsys.readouterr().out
    for label in labels:
        assert re.search(rf"^{re.escape(label)}: {FIGURE}", printed, re.MULTILINE), printed
    written = [json.loads(file.read_text("utf-8")) for file in tmp_path.glob("result*.json")]
    assert written and all(finding["best"] > 0 for each in written for finding in each["findings"])
    if name == "lora":
        assert "without LoRAs the plain weights bit for bit: yes" in printed
    if name == "overhead":
        assert "the same pixels on both sides: yes" in printed
