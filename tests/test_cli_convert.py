"""`python launch.py convert`: where the new file goes, what is said, and that nothing is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpt2_folder import write_gpt2_folder

from core import cli_convert
from core.cli_convert import convert, kind_of
from core.models.preview import ApproxDecoder, TinyDecoder
from core.weights.header import read_header

ROOT = Path(__file__).parents[1]


def run(path: Path, output: Path | None = None, *, models: Path, **searched: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = convert(str(path), str(output) if output else None, models=models, searched=searched, out=out, err=err)
    return code, out.getvalue(), err.getvalue()


def saved(top: Any, path: Path) -> bytes:
    torch.save(top, path)
    return path.read_bytes()


def refused(path: Path, output: Path | None, models: Path) -> str:
    """The one sentence or two that are said; nothing is left behind."""
    before = sorted(models.rglob("*"))
    code, out, err = run(path, output, models=models)
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(models.rglob("*")) == before
    return err


def test_the_command_makes_a_file_in_its_kinds_folder_and_leaves_the_original(tmp_path: Path) -> None:
    original = saved({"string_to_param": {"*": torch.ones(2, 768)}, "name": "old"}, tmp_path / "old.pt")
    argv = ["convert", "--skip-install", "old.pt", "--models-path", "models"]
    command = [sys.executable, str(ROOT / "launch.py"), *argv]
    environ = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environ)
    target = tmp_path / "models/embeddings/old.safetensors"
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert "Left out 1 entry of old.pt besides the weights: 'name'." in done.stderr
    assert (tmp_path / "old.pt").read_bytes() == original
    assert read_header(target).tensors["emb_params"].shape == (2, 768)
    assert [file.name for file in target.parent.iterdir()] == ["old.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="no limit of a file's size")
def test_a_disk_without_room_is_a_failure_of_the_new_file_and_no_refusal(tmp_path: Path) -> None:
    import resource

    saved({"<cat>": torch.ones(400, 768)}, tmp_path / "x.pt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        code, out, err = run(tmp_path / "x.pt", models=tmp_path / "models")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (1, "") and "embeddings" in err and "cannot be read or written" in err
    assert not list((tmp_path / "models/embeddings").iterdir())


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    saved({"<cat>": torch.ones(768)}, tmp_path / "x.pt")
    there = tmp_path / "models/embeddings/x.safetensors"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"mine")
    assert f"{there} is there already, and nothing is overwritten" in refused(
        tmp_path / "x.pt", None, tmp_path / "models"
    )
    assert there.read_bytes() == b"mine"


def test_what_a_killed_command_left_of_the_same_file_goes_and_what_another_writes_stays(tmp_path: Path) -> None:
    saved({"<cat>": torch.ones(768)}, tmp_path / "x.pt")
    folder = tmp_path / "models/embeddings"
    folder.mkdir(parents=True)
    killed, running, other = (
        folder / f".{name}.part" for name in ("x.safetensors.1", "x.safetensors.2", "y.safetensors.3")
    )
    for part in (killed, running, other):
        part.write_bytes(b"half")
    for part in (killed, other):
        os.utime(part, (0, 0))
    assert run(tmp_path / "x.pt", models=tmp_path / "models")[0] == 0
    assert sorted(folder.iterdir()) == sorted([running, other, folder / "x.safetensors"])


def test_a_file_that_is_refused_or_whose_kind_is_unknown_leaves_nothing(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'fired'}",)

    models = tmp_path / "models"
    saved({"a": Canary()}, tmp_path / "evil.ckpt")
    assert "evil.ckpt asks for" in refused(tmp_path / "evil.ckpt", None, models)
    assert not (tmp_path / "fired").exists()
    saved({"what": torch.ones(3, 3)}, tmp_path / "odd.pth")
    assert "cannot be told. Say where it should go with --output FOLDER" in refused(tmp_path / "odd.pth", None, models)
    code, out, err = run(tmp_path / "odd.pth", tmp_path / "there", models=models)
    assert (code, out, err) == (0, f"{tmp_path / 'there' / 'odd.safetensors'}\n", "")


def test_a_path_without_a_model_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_convert, "Reader", None)
    assert "There is no file or folder" in refused(tmp_path / "none.pt", None, tmp_path)
    assert "has no pytorch_model.bin" in refused(tmp_path, None, tmp_path)
    file = tmp_path / "x.pt"
    file.write_bytes(b"x")
    assert "which is a file. Name a folder" in refused(file, file, tmp_path)


def test_a_gpt2_folder_that_lacks_a_file_or_is_fine_already_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_convert, "Reader", None)
    folder = write_gpt2_folder(tmp_path / "gpt2", one_file=False)
    assert "has a model.safetensors already" in refused(folder, None, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for name in ("merges.txt", "positive.txt"):
        (folder / name).unlink()
    assert "lacks positive.txt and tokenizer.json (or vocab.json and merges.txt)" in refused(folder, None, tmp_path)


def test_the_weights_of_a_gpt2_model_alone_are_told_to_need_their_folder(tmp_path: Path) -> None:
    saved({"transformer.h.0.attn.c_attn.weight": torch.ones(4, 12)}, tmp_path / "fooocus_expansion.bin")
    assert "Name the folder that has them all" in refused(tmp_path / "fooocus_expansion.bin", None, tmp_path / "models")


def test_a_folder_that_is_not_searched_is_told(tmp_path: Path) -> None:
    saved({"<cat>": torch.ones(768)}, tmp_path / "x.pt")
    code, _, err = run(tmp_path / "x.pt", models=tmp_path / "models", embeddings=(tmp_path / "elsewhere",))
    assert code == 0 and f'does not search {tmp_path / "models/embeddings"}: add it to "embeddings"' in err


def shapes(*names: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, shape)


def shapes_of(network: torch.nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {prefix + name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        (shapes("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"), "checkpoints"),
        (shapes("lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight", "lora_unet_a.alpha"), "loras"),
        (shapes("diffusion_model.out.2.diff", "model.diffusion_model.out.0.diff_b"), "loras"),
        (shapes("encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"), "vae"),
        (shapes("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"), "upscale_models"),
        (shapes("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), "upscale_models"),
        (shapes("text_model.embeddings.token_embedding.weight"), "text_encoders"),
        (shapes("control_model.input_blocks.0.0.weight", "model.diffusion_model.out.0.weight"), "controlnet"),
        (shapes("ip_adapter.1.to_k_ip.weight", "image_proj.norm_out.weight"), "controlnet"),
        (shapes("<cat>", shape=(768,)), "embeddings"),
        (shapes("clip_l", "clip_g"), "embeddings"),
        (shapes("what"), ""),
        (shapes("a", "b", shape=(4, 768, 3, 3)), ""),
    ],
)  # fmt: skip
def test_the_kind_is_told_by_the_names_of_the_tensors(tensors: dict[str, tuple[int, ...]], kind: str) -> None:
    assert kind_of(tensors, "x.pth") == kind


def test_preview_decoders_are_known_and_other_files_by_their_published_names() -> None:
    assert kind_of(shapes_of(ApproxDecoder()), "xlvaeapp.pth") == "vae_approx"
    tiny = shapes_of(TinyDecoder())
    assert kind_of(tiny, "taesdxl_decoder.pth") == "vae_approx"
    assert kind_of(shapes("what"), "sam_vit_b_01ec64.pth") == "sam"
