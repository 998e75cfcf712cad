"""The catalogue of checkpoints and the cache of hashes."""

import hashlib
import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny import write_checkpoint
from tiny_refiners import write_sd15

from core.errors import BadModelFile, ModelNotFound
from core.weights import files
from core.weights.files import Catalog, FileHashes
from core.weights.info import PARTS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def folder(tmp_path, model):
    folder = tmp_path / "checkpoints"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(model, folder / "tiny.safetensors")
    shutil.copy(model, folder / "sub" / "Alpha.safetensors")
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04")
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden.safetensors").write_bytes(b"")
    return folder


def test_lists_safetensors_of_all_folders_sorted_without_regard_to_case(folder, tmp_path, model):
    second = tmp_path / "more"
    second.mkdir()
    shutil.copy(model, second / "Beta.safetensors")
    shutil.copy(model, second / "tiny.safetensors")
    catalog = Catalog([folder, second, tmp_path / "not there"])
    assert catalog.names() == ["Beta.safetensors", "sub/Alpha.safetensors", "tiny.safetensors"]
    assert catalog.find("tiny.safetensors") == folder / "tiny.safetensors"  # the first folder's
    assert catalog.find("sub/Alpha.safetensors") == folder / "sub" / "Alpha.safetensors"


def test_a_new_file_appears_by_itself(folder, model):
    catalog = Catalog([folder])
    before = catalog.names()
    shutil.copy(model, folder / "new.safetensors")
    assert set(catalog.names()) - set(before) == {"new.safetensors"}


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "sub/../tiny.safetensors",
        "sub\\Alpha.safetensors",
        "./tiny.safetensors",
        "a\0b",
        "x" * 9999,
    ],
)
def test_no_name_leads_out_of_the_folders(folder, tmp_path, name, model):
    """D3: no name from the page becomes a path."""
    shutil.copy(model, tmp_path / "secret.safetensors")
    with pytest.raises(ModelNotFound):
        Catalog([folder]).find(name)


def test_absolute_names_are_not_found(folder):
    with pytest.raises(ModelNotFound):
        Catalog([folder]).find(str(folder / "tiny.safetensors"))


def test_a_name_that_is_not_there_is_told_with_what_is(folder, tmp_path):
    with pytest.raises(
        ModelNotFound, match=r"'none.safetensors' in .*There is: sub/Alpha.safetensors, tiny.safetensors\."
    ):
        Catalog([folder]).find("none.safetensors")
    with pytest.raises(ModelNotFound, match=r"There is no checkpoint in .*Put an SDXL checkpoint"):
        Catalog([tmp_path / "empty"]).find("")


def test_a_pickle_is_not_listed_and_refused_with_what_to_do(folder):
    """D10: nothing is unpickled."""
    catalog = Catalog([folder])
    assert "old.ckpt" not in catalog.names()
    with pytest.raises(BadModelFile, match=r"old\.ckpt is a \.ckpt file.*convert"):
        catalog.find("old.ckpt")


def test_links_that_the_user_made_are_followed_and_loops_end(folder, tmp_path, model):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(model, elsewhere / "linked.safetensors")
    (folder / "link").symlink_to(elsewhere)
    (folder / "sub" / "loop").symlink_to(folder)
    assert Catalog([folder]).names() == ["link/linked.safetensors", "sub/Alpha.safetensors", "tiny.safetensors"]


def test_an_ending_in_capitals_is_one(folder, model):
    shutil.copy(model, folder / "LOUD.SAFETENSORS")
    catalog = Catalog([folder])
    assert "LOUD.SAFETENSORS" in catalog.names()
    assert catalog.find("LOUD.SAFETENSORS") == folder / "LOUD.SAFETENSORS"


def test_a_folder_that_may_not_be_read_hides_no_other(folder, tmp_path, model, unreadable):
    private = tmp_path / "private" / "checkpoints"
    private.mkdir(parents=True)
    shutil.copy(model, private / "secret.safetensors")
    unreadable(tmp_path / "private")
    catalog = Catalog([private, folder])
    assert catalog.names() == ["sub/Alpha.safetensors", "tiny.safetensors"]
    assert catalog.find("tiny.safetensors") == folder / "tiny.safetensors"
    with pytest.raises(ModelNotFound):
        catalog.find("secret.safetensors")


def test_finding_a_file_does_not_walk_through_the_others(folder, monkeypatch):
    catalog = Catalog([folder])
    monkeypatch.setattr(os, "walk", lambda *_, **__: pytest.fail("all folders were walked through"))
    assert catalog.find("sub/Alpha.safetensors") == folder / "sub" / "Alpha.safetensors"
    monkeypatch.undo()
    for name in (
        ".hidden.safetensors",
        "TINY.safetensors",
        "sub",
        "sub/",
        "/tiny.safetensors",
        "sub//Alpha.safetensors",
    ):
        with pytest.raises(ModelNotFound):
            catalog.find(name)


def test_default_is_the_largest_checkpoint_that_can_be_the_base(folder, tmp_path):
    write_checkpoint(folder / "large.safetensors", metadata={"comment": "x" * 5000})
    (folder / "broken.safetensors").write_bytes(bytes(30_000_000))
    catalog = Catalog([folder])
    assert catalog.default() == "large.safetensors"
    assert Catalog([tmp_path / "empty"]).default() == ""


def test_where_no_file_can_be_the_base_by_itself_the_chosen_parts_may_complete_one_and_else_it_is_said_why(tmp_path):
    stored = load_file(write_checkpoint(tmp_path / "whole.safetensors"))
    only = tmp_path / "only"
    only.mkdir()
    write_sd15(only / "sd15.safetensors")
    (only / "broken.safetensors").write_bytes(bytes(30_000_000))
    alone = Catalog([only])
    with pytest.raises(BadModelFile, match=r"^sd15\.safetensors is a Stable Diffusion 1\.5 checkpoint"):
        alone.default(PARTS)
    network = {name: tensor for name, tensor in stored.items() if not name.startswith("conditioner.")}
    save_file(network, only / "network.safetensors", {"comment": "x" * 10**7})
    with pytest.raises(BadModelFile, match=r"^network\.safetensors lacks .* Choose text_encoder_l .*, text_encoder_g"):
        alone.default(["vae"])
    with pytest.raises(BadModelFile, match=r"Choose text_encoder_g \("):
        alone.default(["text_encoder_l"])
    both = ["text_encoder_l", "text_encoder_g"]
    assert alone.default(both) == "network.safetensors"
    assert Catalog([only, tmp_path]).default(both) == "whole.safetensors"  # smaller, and whole


def test_where_no_file_can_be_read_the_default_says_why(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(bytes(30_000_000))
    with pytest.raises(BadModelFile, match=r"broken\.safetensors"):
        Catalog([tmp_path]).default()


def test_info_follows_a_file_that_changes(folder):
    catalog = Catalog([folder])
    assert catalog.info("tiny.safetensors").native_size == (64, 64)
    write_checkpoint(folder / "tiny.safetensors", metadata={"modelspec.resolution": "128x192"})
    assert catalog.info("tiny.safetensors").native_size == (128, 192)
    (folder / "tiny.safetensors").write_bytes(b"<html>")
    with pytest.raises(BadModelFile):
        catalog.info("tiny.safetensors")


def test_each_of_several_links_to_one_file_has_its_own_name(folder):
    """A name may say how a checkpoint was distilled, and with it how it samples best."""
    link = folder / "base.safetensors"
    link.symlink_to(folder / "tiny.safetensors")
    catalog = Catalog([folder])
    assert catalog.info("base.safetensors").name == "base.safetensors"
    assert catalog.info("tiny.safetensors").name == "tiny.safetensors"
    renamed = link.rename(folder / "base_lightning_4step.safetensors").name
    assert catalog.info(renamed).name == renamed and catalog.info(renamed).settings["steps"] == 4


def test_hash_is_sha256_of_the_whole_file_and_is_remembered(tmp_path, monkeypatch):
    """D55, Q38: by path, size and time of change, so that a file that was replaced is read again."""
    file, cache = tmp_path / "file", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"x" * 3_000_000)
    expected = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert FileHashes(cache).of(file) == expected
    assert [p.name for p in cache.parent.iterdir()] == ["hashes.json"]

    monkeypatch.setattr("core.weights.files._sha256", lambda path: pytest.fail("read again"))
    assert FileHashes(cache).of(file) == expected
    monkeypatch.undo()

    status = file.stat()
    file.write_bytes(b"y" * 3_000_000)  # same size, later
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert FileHashes(cache).of(file) == hashlib.sha256(b"y" * 3_000_000).hexdigest()


def test_d21_what_another_program_hashed_meanwhile_stays_remembered(tmp_path, monkeypatch):
    ours, theirs, cache = tmp_path / "ours", tmp_path / "theirs", tmp_path / "hashes.json"
    ours.write_bytes(b"x")
    theirs.write_bytes(b"y")
    other, digest = FileHashes(cache), files._sha256

    def slow(path):
        if path == ours:
            other.of(theirs)
        return digest(path)

    monkeypatch.setattr(files, "_sha256", slow)
    FileHashes(cache).of(ours)
    assert FileHashes(cache).known({"ours": ours, "theirs": theirs}).keys() == {"ours", "theirs"}


def test_hashes_that_are_known_are_told_by_name_and_none_is_made_for_it(tmp_path, monkeypatch):
    loras, cache = tmp_path / "loras", tmp_path / "hashes.json"
    (loras / "art").mkdir(parents=True)
    for name in ("art/known.safetensors", "other.safetensors", "changed.safetensors", "note.txt"):
        (loras / name).write_bytes(name.encode())
    catalog = Catalog([], hash_cache=cache, others={"loras": [loras]})
    for name in ("art/known.safetensors", "changed.safetensors", "note.txt"):
        catalog.file_hash(loras / name)
    (loras / "changed.safetensors").write_bytes(b"something else")
    monkeypatch.setattr("core.weights.files._sha256", lambda path: pytest.fail("hashed"))
    digits = hashlib.sha256(b"art/known.safetensors").hexdigest()
    for again in (catalog, Catalog([], hash_cache=cache, others={"loras": [loras]})):
        assert again.known_hashes("loras") == {"art/known.safetensors": digits}
        assert again.known_hashes("vae") == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "\0" * 50, "[" * 100_000])
def test_a_broken_cache_counts_as_empty_and_is_replaced(tmp_path, content):
    """Q38."""
    file, cache = tmp_path / "file", tmp_path / "hashes.json"
    file.write_bytes(b"abc")
    cache.write_text(content)
    assert FileHashes(cache).of(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180
    assert list(json.loads(cache.read_text()).values()) == [FileHashes(cache).of(file)]


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    (tmp_path / "in the way").write_text("")
    assert FileHashes(tmp_path / "in the way" / "hashes.json").of(file).startswith("ba7816bf")


@pytest.mark.timeout(60)
def test_a_thousand_files_are_listed(tmp_path):
    for i in range(1000):
        (tmp_path / f"{i}.safetensors").write_bytes(b"")
    assert len(Catalog([tmp_path]).names()) == 1000
