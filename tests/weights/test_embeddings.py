"""Files of textual inversion: which one a word means, which vectors are in it, and what is said of those that will not do."""

import unicodedata

import pytest
import torch
from safetensors.torch import save_file

from core.errors import BadModelFile
from core.weights import embeddings
from core.weights.embeddings import Embeddings, named
from core.weights.files import Files

WIDTHS = {"clip_l": 64, "clip_g": 96}


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def library(folder):
    return Embeddings(Files([folder], "embeddings"), WIDTHS)


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cat", "cat.safetensors"),
        ("cat.safetensors", "cat.safetensors"),
        ("CAT", "cat.safetensors"),
        ("dog", "a/dog.safetensors"),
        ("b/dog", "b/dog.safetensors"),
        ("b\\dog.safetensors", "b/dog.safetensors"),
        ("Dog", "b/Dog.safetensors"),
        ("old", "old.pt"),
        ("both", "c/both.safetensors"),
        ("both.bin", "both.bin"),
        ("v1.5", "v1.5.safetensors"),
        ("at", None),
        ("notes", None),
        ("../cat", None),
        ("/etc/cat", None),
        ("", None),
        (".", None),
        ("a/", None),
    ],
)
def test_a_name_means_the_same_file_whatever_the_order_on_the_disk(name, found):
    """The reference's order of search is undefined (register: Q22)."""
    files = [
        "cat.safetensors", "a/dog.safetensors", "b/dog.safetensors", "b/Dog.safetensors", "old.pt", "both.bin",
        "c/both.safetensors", "v1.5.safetensors", "notes.txt",
    ]  # fmt: skip
    assert named(name, files) == named(name, files[::-1]) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my_neg", "my_neg.safetensors"),
        ("my neg", "my neg.safetensors"),
        ("My_neg", "My neg.safetensors"),
        ("other_one", "other one.safetensors"),
        ("Other_One", "other one.safetensors"),
        ("neg_(1)", "neg (1).safetensors"),
        ("a_b_c", "a__b  c.safetensors"),
        ("our_sub/in_it", "our sub/in it.safetensors"),
        ("x", "x.safetensors"),
        ("x,", None),
    ],
)
def test_an_underscore_stands_for_what_no_prompt_can_say_if_no_file_has_it(name, found):
    files = [
        f"{n}.safetensors"
        for n in ("my neg", "my_neg", "My neg", "other one", "neg (1)", "a__b  c", "our sub/in it", "x", "x_")
    ]
    assert named(name, files) == named(name, files[::-1]) == found


def test_accents_are_found_however_they_are_composed():
    """A Mac writes names in parts, keyboards write whole letters."""
    parts, whole = (unicodedata.normalize(form, "beauté") for form in ("NFD", "NFC"))
    assert named(whole, [f"{parts}.safetensors"]) == f"{parts}.safetensors"
    assert named(parts, [f"{whole}.safetensors"]) == f"{whole}.safetensors"


@pytest.mark.parametrize(
    "tensors",
    [
        {"clip_l": vectors(3, 64), "clip_g": vectors(3, 96)},
        {"clip_g": vectors(3, 96), "clip_l": vectors(3, 64), "note": torch.zeros(7)},
        {"text_encoders_0": vectors(3, 64), "text_encoders_1": vectors(3, 96)},
        {"one": vectors(3, 64), "other": vectors(3, 96)},
        {"clip_l": vectors(3, 64).double(), "clip_g": vectors(3, 96).double()},
    ],
)
def test_sdxl_embeddings_have_vectors_for_both_encoders(folder, library, tensors):
    save_file(tensors, folder / "x.safetensors")
    embedding, rest = library.find("x")
    assert (len(embedding), rest, embedding.notice) == (3, "", "")
    assert torch.equal(embedding.clip_l, vectors(3, 64)) and torch.equal(embedding.clip_g, vectors(3, 96))


@pytest.mark.parametrize("key", ["emb_params", "<cat-toy>", "string_to_param.*"])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (4, 64)])
def test_a_single_table_goes_to_the_encoder_that_it_fits(folder, library, key, shape):
    save_file({key: vectors(*shape)}, folder / "old.safetensors")
    embedding, _ = library.find("old")
    assert torch.equal(embedding.clip_l, vectors(*shape).reshape(-1, 64)) and embedding.clip_g is None
    assert "old.safetensors has no vectors for CLIP-G" in embedding.notice


def test_sixteen_bit_vectors_become_float32(folder, library):
    save_file({"clip_l": vectors(2, 64).half(), "clip_g": vectors(2, 96).bfloat16()}, folder / "x.safetensors")
    embedding, _ = library.find("x")
    assert embedding.clip_l.dtype == embedding.clip_g.dtype == torch.float32


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"emb_params": torch.zeros(2, 1024)}, "width 1024, .* want 64 .CLIP-L., 96 .CLIP-G.*Stable Diffusion 2"),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 96)}, "width 768 for CLIP-L, .* 64 wide"),
        ({f"lora.{i}.lora_down.weight": torch.zeros(8, 64) for i in range(9)}, "is no embedding"),
        ({"emb_params": torch.zeros(2, 2, 64)}, "is no embedding"),
        ({"emb_params": torch.zeros(0, 64)}, "is no embedding"),
        ({"emb_params": torch.zeros(2, 64, dtype=torch.int64)}, "is no embedding"),
        ({"emb_params": torch.zeros(1001, 64)}, "1001 vectors"),
        ({"emb_params": torch.full((2, 64), float("nan"))}, "not all numbers"),
    ],
)
def test_vectors_that_will_not_do_are_told_with_the_files_name(folder, library, tensors, words):
    save_file(tensors, folder / "bad.safetensors")
    with pytest.raises(BadModelFile, match=f"bad.safetensors.*{words}"):
        library.find("bad")


@pytest.mark.parametrize("ending", ["pt", "bin"])
def test_pickles_are_refused_with_a_way_out_and_stay_what_they_are(folder, library, ending):
    """In the reference such a file is renamed (register: Q27, Q28, Q43)."""
    torch.save({"string_to_param": {"*": torch.zeros(1, 64)}}, folder / f"old.{ending}")
    before = (folder / f"old.{ending}").read_bytes()
    with pytest.raises(BadModelFile, match=rf"old\.{ending} .*launch\.py convert FILE"):
        library.find("old")
    assert [file.name for file in folder.iterdir()] == [f"old.{ending}"]
    assert (folder / f"old.{ending}").read_bytes() == before


@pytest.mark.parametrize(("word", "rest"), [("x,", ","), ("x.", "."), (",x,,", ",,"), ("x", ""), ("y,", ",")])
def test_punctuation_at_a_name_is_text_unless_the_file_is_called_so(folder, library, word, rest):
    for name in ("x.safetensors", "y.safetensors"):
        save_file({"emb_params": vectors(1, 64)}, folder / name)
    embedding, found = library.find(word)
    assert embedding.name[0] in word and found == rest
    save_file({"emb_params": vectors(1, 64)}, folder / "y,.safetensors")
    assert library.find("y,")[1] == ""


@pytest.mark.parametrize(("word", "name", "rest"), [("wow!,", "wow!", ","), ("x,a", "x", ",a"), (",x,a,", "x", ",a,")])
def test_a_name_ends_where_its_file_s_does(folder, library, word, name, rest):
    for one in ("x", "wow!"):
        save_file({"emb_params": vectors(1, 64)}, folder / f"{one}.safetensors")
    embedding, found = library.find(word)
    assert (embedding.name, found) == (f"{name}.safetensors", rest)


def test_a_link_to_nowhere_is_no_file(folder, library):
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    assert library.find("gone") == (None, "")
    assert "in the embeddings folder" in library.missing("gone")
    (folder / "sub").mkdir()
    save_file({"emb_params": vectors(1, 64)}, folder / "sub" / "gone.safetensors")
    assert library.find("gone")[0].name == "sub/gone.safetensors"


def test_a_file_that_goes_while_it_is_read_is_told(folder, library, monkeypatch):
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    monkeypatch.setattr(embeddings, "is_file", lambda path: True)
    with pytest.raises(BadModelFile, match=r"The embedding gone\.safetensors cannot be read: No such file"):
        library.find("gone")


def test_a_name_without_a_file_is_none_and_the_user_is_told_what_was_near(folder, library):
    save_file({"emb_params": vectors(1, 64)}, folder / "watercolour.safetensors")
    assert library.find("watercolor") == (None, "")
    assert "Did you mean 'watercolour'?" in library.missing("watercolor,")
    assert "in the embeddings folder" in library.missing("qqqq")
    save_file({"emb_params": vectors(1, 64)}, folder / "hands (1).safetensors")
    assert r"Did you mean 'hands_\(1\)'?" in library.missing("hans_(1)")


def test_a_file_is_read_once_until_it_changes(folder, library):
    save_file({"emb_params": vectors(1, 64)}, folder / "x.safetensors")
    first, _ = library.find("x")
    assert library.find("x")[0] is first
    save_file({"emb_params": vectors(2, 64)}, folder / "x.safetensors")
    assert len(library.find("x")[0]) == 2
