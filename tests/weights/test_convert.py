"""What a pickle container holds, as safetensors: each form that such files have, and what is refused."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.models.preview import ApproxDecoder, preview_decoder
from core.weights import convert
from core.weights.convert import Contents, Refused, check, read, write
from core.weights.embeddings import Embeddings
from core.weights.files import Files

ROOT = Path(__file__).parents[2]


class Canary:
    """What runs a program where a file is unpickled without care."""

    def __init__(self, nest):
        self.nest = nest

    def __reduce__(self):
        return os.system, (f"touch {self.nest}",)


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def converted(top, folder, name="x.pt", **options):
    """`top` saved as torch saves it, read and written again: the tensors of the new file, and what was left out."""
    torch.save(top, folder / name, **options)
    found = read(folder / name)
    check(found, (folder / name).stat().st_size)
    target = folder / f"{Path(name).stem}.safetensors"
    assert write(target, found.tensors) == target.stat().st_size
    return load_file(target), found.left_out


def found_by(folder, name, **widths):
    return Embeddings(Files([folder], "embeddings"), widths or {"clip_l": 768, "clip_g": 1280}).find(name)[0]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", ["state_dict", "params_ema", None])
def test_checkpoints_loras_and_upscalers_keep_their_keys_and_numbers(tmp_path, wrapper, zipped):
    weights = {
        "model.diffusion_model.a": vectors(3, 5).half(), "b": vectors(2, 2).bfloat16(), "c": torch.tensor(7),
        "d": torch.zeros(0, 4), "e": torch.tensor([True, False]), "f": vectors(4, 4).T, "g": torch.nn.Parameter(vectors(3)),
    }  # fmt: skip
    if zipped:  # the older form has no 8-bit floats
        weights["h"] = vectors(4).to(torch.float8_e4m3fn)
    top = {wrapper: {**weights, "note": "x"}, "epoch": 3} if wrapper else {**weights, "note": "x"}
    tensors, left_out = converted(top, tmp_path, _use_new_zipfile_serialization=zipped)
    assert tensors.keys() == weights.keys()
    for name, tensor in weights.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name].float(), tensor.detach().float()), name
    assert left_out == (["epoch", "note"] if wrapper else ["note"])


def test_tables_within_tables_become_names_with_dots_and_shared_weights_are_written_twice(tmp_path):
    table = vectors(4, 4)
    tensors, _ = converted({"image_proj": {"norm": table}, "ip_adapter": {"1.k": {"weight": table}}}, tmp_path)
    assert tensors.keys() == {"image_proj.norm", "ip_adapter.1.k.weight"}
    assert all(torch.equal(tensor, table) for tensor in tensors.values())


def test_a_preview_decoder_is_one_after_its_conversion(tmp_path):
    decoder = ApproxDecoder()
    tensors, _ = converted(decoder.state_dict(), tmp_path, "xlvaeapp.pth")
    latent = vectors(1, 4, 8, 8)
    assert torch.equal(preview_decoder(tensors)(latent), decoder(latent))


@pytest.mark.parametrize(
    "top",
    [
        {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(3, 768)}, "name": "x", "step": 500},
        {"<cat-toy>": vectors(3, 768)},
        [{"a": vectors(3, 768)[0]}, {"a": vectors(3, 768)[1:], "note": "x"}],
    ],
    ids=["A1111", "diffusers", "list"],
)
@pytest.mark.parametrize("name", ["x.pt", "x.bin"])
def test_embeddings_of_every_form_give_the_same_vectors(tmp_path, top, name):
    """The forms of the spec's 17.7."""
    converted(top, tmp_path, name)
    assert torch.equal(found_by(tmp_path, "x").clip_l, vectors(3, 768))


@pytest.mark.parametrize("as_list", [True, False])
def test_embeddings_of_sdxl_keep_the_vectors_of_both_encoders(tmp_path, as_list):
    small, large = vectors(2, 768), vectors(2, 1280)
    tensors, _ = converted([{"s": small, "l": large}] if as_list else {"clip_l": small, "clip_g": large}, tmp_path)
    assert tensors.keys() == {"clip_l", "clip_g"}
    embedding = found_by(tmp_path, "x")
    assert torch.equal(embedding.clip_l, small) and torch.equal(embedding.clip_g, large) and not embedding.notice


def test_an_embedding_that_the_unpickler_refuses_is_read_from_its_raw_numbers(tmp_path):
    """Q43: in the reference nothing ever gets there. Such a file is what the paper's own program wrote."""
    nest = tmp_path / "fired"
    wanted = torch.nn.Parameter(vectors(2, 768))
    tensors, left_out = converted({"string_to_param": torch.nn.ParameterDict({"*": wanted})}, tmp_path)
    assert torch.equal(tensors["emb_params"], wanted) and len(left_out) == 1
    tensors, _ = converted(
        {"first": vectors(1, 768), "canary": Canary(nest), "last": vectors(2, 1024)}, tmp_path, "y.pt"
    )
    assert torch.equal(tensors["emb_params"], vectors(2, 1024)) and not nest.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_a_program_is_refused_and_does_not_run(tmp_path, zipped):
    """Q28, Q43 and E7: no way of reading falls back to an unchecked one."""
    nest = tmp_path / "fired"
    with pytest.raises(Refused, match=r"asks for \w+\.system, which could run a program"):
        converted({"a": vectors(3), "canary": Canary(nest)}, tmp_path, _use_new_zipfile_serialization=zipped)
    assert not nest.exists() and not (tmp_path / "x.safetensors").exists()


def test_classes_that_trainers_leave_beside_the_weights_are_passed_over(tmp_path, monkeypatch):
    """pytorch_lightning's, as in the first Stable Diffusion checkpoints; they are neither imported nor needed."""
    import types

    module = types.ModuleType("pytorch_lightning.callbacks")
    module.Saver = type("Saver", (), {"__module__": module.__name__, "__init__": lambda self: setattr(self, "best", 1)})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"state_dict": {"a": vectors(3)}, "callbacks": {module.Saver: module.Saver()}}, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    found = read(tmp_path / "x.ckpt")
    assert torch.equal(found.tensors["a"], vectors(3)) and found.left_out == ["callbacks"]


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ({"a": 1, "b": "x"}, "holds no tensors"),
        (vectors(3), "holds no tensors"),
        ({"w": [vectors(3), vectors(3), vectors(3)]}, "holds no tensors"),
        ({"string_to_param": {}}, "embedding without vectors"),
        ([{"a": 1}, 2], "list without vectors"),
        ({"a": {"b": vectors(2)}, "a.b": vectors(3)}, "two tensors of the name 'a.b'"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, top, words):
    with pytest.raises(Refused, match=words):
        converted(top, tmp_path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, dtype=torch.complex64), "type complex64, which safetensors"),
        (torch.eye(3).to_sparse(), "which safetensors"),
        (torch.zeros(1).expand(10**9, 1000), "unpacks to 4000000000000"),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_before_anything_is_written(tensor, words):
    with pytest.raises(Refused, match=words):
        check(Contents({"a": tensor}), 1000)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_told(tmp_path, zipped, share):
    path = tmp_path / "x.pt"
    torch.save({"a": vectors(2000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(Refused, match=r"damaged or cut off\. Download it again"):
        read(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello, this is a text", "no PyTorch file"),
        (b"", "no PyTorch file"),
        (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file already"),
    ],
)
def test_another_kind_of_file_is_told(tmp_path, data, words):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(Refused, match=words):
        read(tmp_path / "x.pt")


def test_a_zip_archive_without_a_pickle_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(Refused, match="damaged"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "deed",
    [
        "open({other!r}, 'w')", "os.open({other!r}, os.O_RDWR)", "os.system('true')", "subprocess.run(['true'])",
        "socket.socket()", "os.remove({target!r})", "pickle.loads(b'cos\\nsystem\\n.')",
    ],
)  # fmt: skip
def test_the_process_that_opens_files_can_do_nothing_else(tmp_path, deed):
    """E8: without network, and with a narrow file system, in case the unpickler has a hole."""
    target, other = str(tmp_path / "new"), str(tmp_path / "other")
    code = f"""
import importlib.machinery, os, pickle, socket, subprocess, sys, types
sys.modules["torch"] = types.SimpleNamespace(Tensor=None, **dict.fromkeys({[str(each)[6:] for each in convert.DTYPES]}))
guard = importlib.machinery.SourceFileLoader("convert", {convert.__file__!r}).load_module().Guard()
guard.target = {target!r}
sys.addaudithook(guard)
open(guard.target, "w").close()
{deed.format(target=target, other=other)}
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-B", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "PermissionError" in done.stderr.splitlines()[-1] and "refused" in done.stderr, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def test_the_guard_stands_before_the_file_is_opened():
    source = (ROOT / "core/weights/convert.py").read_text(encoding="utf-8")
    body = source[source.index("def main(") :]
    assert 0 < body.index("sys.addaudithook(guard)") < body.index("read(path)")
