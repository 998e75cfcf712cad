"""The header reader against safetensors' own, on good, damaged and hostile files."""

import io
import json
import random
import struct
import time
import zipfile

import pytest
from safetensors import SafetensorError, deserialize

from core.errors import BadModelFile, ModelNotFound, UserError
from core.weights.header import Header, TensorEntry, read_header


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F16", shape=(2, 3), start=0, end=12):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


GOOD = {
    "__metadata__": {"modelspec.resolution": "256x256", "note": "ä"},
    "b": entry("F32", (4,), 12, 28),
    "a": entry(),
    "empty": entry("BF16", (0, 5), 28, 28),
    "number": entry("I64", (), 28, 36),
}
GOOD_FILE = safetensors(GOOD, bytes(range(36)))


@pytest.fixture
def read(tmp_path):
    def read(content, name="model.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            return read_header(path)
        finally:
            assert path.read_bytes() == content
            assert [p.name for p in tmp_path.iterdir()] == [name]  # nothing is renamed, moved or left behind
            path.unlink()

    return read


def test_reads_names_types_shapes_places_and_metadata(read):
    header = read(GOOD_FILE)
    first = len(GOOD_FILE) - 36
    assert list(header.tensors) == ["a", "b", "empty", "number"]  # by place in the file
    assert header.tensors["b"] == TensorEntry("F32", (4,), first + 12, first + 28)
    assert header.tensors["number"].shape == ()
    assert header.metadata == {"modelspec.resolution": "256x256", "note": "ä"}
    assert header.size == len(GOOD_FILE)


def test_a_part_is_what_begins_with_a_prefix(read):
    header = read(
        safetensors({"x.a": entry(), "y.a": entry(start=12, end=24), "x": entry(start=24, end=36)}, bytes(36))
    )
    assert header.shapes("x.") == {"a": (2, 3)}
    assert list(header.part("x.", "y.")) == ["a"]
    assert isinstance(header, Header)


HOSTILE = {
    "empty file": (b"", "damaged: it has 0 bytes"),
    "five bytes": (b"\x05\0\0\0\0", "damaged"),
    "header longer than the file": (struct.pack("<Q", 5000) + b"{}", "cut off"),
    "header length bomb": (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
    "header length just above the limit": (struct.pack("<Q", 100_000_001) + b"{" * 20, "not a safetensors file"),
    "data cut off": (GOOD_FILE[:-1], r"cut off: it has \d+ bytes, and \d+ were wanted"),
    "too much data": (GOOD_FILE + b"x", "1 bytes more"),
    "no JSON": (safetensors(b'{"a": '), "not JSON"),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), "not JSON"),
    "a list": (safetensors(b"[]"), "not a safetensors file"),
    "deep nesting": (safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "damaged"),
    "same name twice": (safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), bytes(12)), "twice"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}}), "metadata"),
    "metadata a list": (safetensors({"__metadata__": []}), "metadata"),
    "entry a list": (safetensors({"a": []}), "not described"),
    "entry without shape": (safetensors({"a": {"dtype": "F16", "data_offsets": [0, 0]}}), "not described"),
    "unknown type": (safetensors({"a": entry("F17")}, bytes(12)), "unknown type F17"),
    "type a list": (safetensors({"a": entry(["F16"])}, bytes(12)), "unknown type"),
    "negative size": (safetensors({"a": entry(shape=(-2, -3))}, bytes(12)), "impossible shape"),
    "sizes of text": (safetensors({"a": entry(shape=("2", 3))}, bytes(12)), "impossible shape"),
    "sizes true": (safetensors({"a": entry(shape=(True, 6))}, bytes(12)), "impossible shape"),
    "sizes of floats": (safetensors({"a": entry(shape=(2.0, 3))}, bytes(12)), "impossible shape"),
    "a size beyond all memory": (safetensors({"a": entry(shape=(10**30,))}, bytes(12)), "impossible shape"),
    "shape larger than data": (
        safetensors({"a": entry(shape=(2, 4))}, bytes(12)),
        "12 bytes, and its shape asks for 16",
    ),
    "sizes whose product overflows": (safetensors({"a": entry(shape=(2**40, 2**40), end=0)}), "asks for"),
    "end before start": (safetensors({"a": entry(start=12, end=0)}, bytes(12)), "impossible place"),
    "negative place": (safetensors({"a": entry(start=-12, end=0)}, bytes(12)), "impossible place"),
    "three places": (
        safetensors({"a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12, 12]}}, bytes(12)),
        "impossible place",
    ),
    "overlap": (safetensors({"a": entry(), "b": entry(start=6, end=18)}, bytes(18)), "overlaps"),
    "gap": (safetensors({"a": entry(), "b": entry(start=14, end=26)}, bytes(26)), "gap"),
    "beyond the end": (safetensors({"a": entry(start=0, end=12)}, bytes(6)), "cut off"),
    "web page": (b"<!DOCTYPE html><html>Log in to download</html>", "web page"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6938078334\n",
        "git lfs pull",
    ),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
    "old pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damage_is_told_in_a_sentence_that_names_the_file(read, case):
    content, words = HOSTILE[case]
    with pytest.raises(BadModelFile, match=f"model.safetensors.*{words}") as caught:
        read(content)
    assert str(caught.value).endswith(".")


def test_a_pickle_is_known_by_its_content_whatever_its_name(read):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(BadModelFile, match=r"model\.safetensors is a PyTorch pickle.*launch\.py convert FILE"):
        read(archive.getvalue())


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".CKPT"])
def test_a_pickle_is_refused_by_its_name_with_what_to_do(read, ending):
    with pytest.raises(BadModelFile, match=f"model{ending} is a {ending} file.*launch.py convert FILE"):
        read(GOOD_FILE, f"model{ending}")


def test_a_file_that_is_not_there_and_a_folder_are_told(tmp_path):
    with pytest.raises(ModelNotFound, match=r"none\.safetensors does not exist"):
        read_header(tmp_path / "none.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=r"folder\.safetensors cannot be read"):
        read_header(tmp_path / "folder.safetensors")


def mutated(content, rng):
    """One of many kinds of damage to a file."""
    kind = rng.randrange(7)
    damaged = bytearray(content)
    if kind == 0:
        return bytes(damaged[: rng.randrange(len(damaged))])
    if kind == 1:
        return bytes(damaged) + rng.randbytes(rng.randrange(1, 20))
    if kind == 2:
        damaged[rng.randrange(8)] = rng.randrange(256)
        return bytes(damaged)
    for _ in range(rng.randrange(1, 4)):  # inside the header, most often by what can stand there
        place = rng.randrange(8, len(damaged) - 36)
        if kind in (3, 4):
            damaged[place] = rng.choice(b'0123456789[]{},:" -.eEFIBtrue')
        elif kind == 5:
            damaged[place] = rng.randrange(256)
        else:
            del damaged[place]
    if kind == 6:  # with the length set right again, so that the damage is deeper down
        damaged[:8] = struct.pack("<Q", len(damaged) - 8 - 36)
    return bytes(damaged)


def test_thousands_of_damaged_files_never_get_past_what_the_library_refuses(read):
    rng, end = random.Random(0), time.monotonic() + 20
    accepted = 0
    for _ in range(4000):
        content = mutated(GOOD_FILE, rng)
        try:
            header = read(content)
        except BadModelFile:
            header = None
        try:
            theirs = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(content)}
        except SafetensorError:
            theirs = None
        if header is not None:
            accepted += 1
            assert theirs is not None, content
            ours = {n: (e.dtype, e.shape, content[e.start : e.end]) for n, e in header.tensors.items()}
            assert ours == theirs
        if time.monotonic() > end:
            break
    assert accepted > 50  # so that the comparison means something
