"""The GPT-2 expander on a small one of random weights. The truth is transformers' own generate() with the same rules."""

import json
import random
import re

import numpy as np
import pytest
import torch
from gpt2_folder import WORDS, vocabulary, write_gpt2_folder

from core import arguments
from core.cli_convert import convert
from core.errors import BadModelFile
from core.text.gpt2 import Gpt2Expander, gpt2_folders

PROMPTS = ("a red fox", "  a  fox, ba be, kas . ", "x" * 90, "ein Fuchs im Bälde, 狐")


def load(path, **kwargs):
    [folder] = gpt2_folders({file.name: file for file in path.iterdir()})
    return Gpt2Expander.load(folder, **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_gpt2_folder(tmp_path_factory.mktemp("expansion") / "fooocus_expansion")


@pytest.fixture(scope="module")
def expander(folder):
    return load(folder)


@pytest.fixture
def tokens(expander):
    return lambda text: expander._tokenizer.encode(text).ids


def generated(folder, prompt, seed):
    """The reference's procedure, by transformers' own loop and the global random state."""
    from transformers import GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

    ids, _ = vocabulary()
    words = (folder / "positive.txt").read_text().splitlines()
    allowed = [ids["Ġ" + word.lower()] for word in words if word and "Ġ" + word.lower() in ids]

    class Bias(LogitsProcessor):
        def __call__(self, input_ids, scores):
            bias = torch.full_like(scores, -8192.0)
            bias[0, allowed] = 0
            bias[0, input_ids[0]] = -8192.0
            bias[0, 11] = 0
            return scores + bias

    text = prompt
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.strip(",. \r\n") + ","
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    given = tokenizer(text, return_tensors="pt")
    count = given["input_ids"].shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model.generate(
            **given, do_sample=True, max_new_tokens=-(-count // 75) * 75 - count, top_k=100, temperature=1.0, top_p=1.0,
            pad_token_id=len(ids) - 1, logits_processor=LogitsProcessorList([Bias()]),
        )  # fmt: skip
    return tokenizer.decode(made[0], skip_special_tokens=True).strip(",. \r\n")


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_writes_what_transformers_generates_under_the_same_rules(folder, expander, prompt, seed):
    assert expander(prompt, seed) == generated(folder, prompt, seed)


def test_a_seed_counts_modulo_two_to_the_32nd(expander):
    assert expander("a fox", 2**32 + 5) == expander("a fox", 5) != expander("a fox", 6)


def test_each_word_of_the_list_comes_once_and_nothing_else_but_commas(expander, tokens):
    before = tokens("a fox, ba be kas,")
    ids, _ = vocabulary()
    names = {number: token for token, number in ids.items()}
    for seed in range(5):
        after = tokens(expander("a fox, ba be kas", seed))[len(before) :]
        words = [names[number] for number in after if names[number] != ","]
        assert len(words) == len(set(words)) > 20 and set(words) <= {f"Ġ{word}" for word in WORDS}
        assert not {"Ġba", "Ġbe", "Ġkas"} & set(words)


@pytest.mark.parametrize(("letters", "tokens_after"), [(1, 75), (60, 75), (74, 75), (75, 150), (149, 150)])
def test_it_fills_the_chunk_that_the_prompt_has_begun(expander, tokens, letters, tokens_after):
    text = expander("x" * letters, 1)
    assert text.startswith("x" * letters)
    if letters % 75 == 74:  # with its comma the prompt fills the chunk itself
        assert text == "x" * letters
    else:
        assert tokens_after - 20 < len(tokens(text)) <= tokens_after  # commas at the end are cut off


def test_what_is_longer_than_the_network_can_read_stays_as_it_is(expander):
    assert expander("y" * 500, 1) == "y" * 500
    assert expander("y" * 380, 1).startswith("y" * 380 + ",")  # the last chunk is cut at 400 tokens


def test_an_empty_prompt_is_not_continued(expander):
    assert expander(" , .", 1) == ""


def test_the_random_states_of_others_are_left_alone(folder):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    load(folder)("a fox", 3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tobytes())


def test_the_last_texts_are_remembered(folder, monkeypatch):
    expander = load(folder)
    first = expander("a fox", 3)
    assert expander.remembers(" a fox,", 3 + 2**32) and not expander.remembers("a fox", 4)
    monkeypatch.setattr(expander, "_continued", lambda *_: pytest.fail("this was to be remembered"))
    assert expander(" a fox.", 3) == first


def test_it_can_be_stopped_between_two_words(expander):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        expander("never before", 1, check=check)
    assert not expander.remembers("never before", 1)


def test_a_tokenizer_of_two_files_is_the_same_as_one_of_one(folder, expander, tmp_path):
    other = write_gpt2_folder(tmp_path / "two", one_file=False)
    assert load(other)("a fox, bälde <|endoftext|>", 2) == expander("a fox, bälde <|endoftext|>", 2)


def test_half_the_precision_is_half_the_memory_and_writes_too(folder):
    expander = load(folder, dtype=torch.float16)
    assert {weight.dtype for weight in expander.network.parameters()} == {torch.float16}
    assert expander("a fox", 1).startswith("a fox,")


def test_a_pickle_is_refused_with_the_command_that_converts_it(folder, expander, tmp_path):
    """The command makes a folder of the published form work, and leaves that folder as it is (register: Q28)."""
    from transformers import GPT2LMHeadModel

    path = write_gpt2_folder(tmp_path / "published")
    state = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 400, 400, dtype=torch.bool) for i in range(2)}
    torch.save(state | masks, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(BadModelFile, match=r"pytorch_model\.bin is a pickle.*any program") as refused:
        load(path)
    command, source = re.search(r'python launch\.py (\w+) "(.*)"', str(refused.value)).groups()
    assert arguments.parse([command, source]).command == "convert"
    assert convert(source, models=tmp_path, searched={}) == 0
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert load(tmp_path / "prompt_expansion/published")("a fox", 1) == expander("a fox", 1)
    assert [file.name for file in (tmp_path / "prompt_expansion").iterdir()] == ["published"]


def test_masks_and_the_tied_head_of_older_files_are_passed_over(folder, expander, tmp_path):
    from safetensors.torch import load_file, save_file

    path = write_gpt2_folder(tmp_path / "older")
    tensors = load_file(folder / "model.safetensors")
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(2)}
    save_file(
        tensors | masks | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}, path / "model.safetensors"
    )
    assert load(path)("a fox", 1) == expander("a fox", 1)


def config_with(**changes):
    def change(text):
        return json.dumps(json.loads(text) | changes)

    return change


def with_one_token_more(text):
    tokenizer = json.loads(text)
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 417, "content": "<more>"})
    return json.dumps(tokenizer)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("config.json", None, r"lacks config\.json"),
        ("positive.txt", None, r"lacks positive\.txt"),
        ("tokenizer.json", None, "vocab"),
        ("config.json", lambda _: "{", "does not describe a GPT-2"),
        ("config.json", config_with(model_type="llama"), "does not describe a GPT-2"),
        ("config.json", config_with(n_layer=10**9), "impossible sizes"),
        ("config.json", config_with(n_layer=3), "lacks tensors, 12 in all"),
        ("config.json", config_with(n_embd=64), "shape"),
        ("config.json", config_with(n_head=5), "no GPT-2 model that can be built"),
        ("config.json", config_with(activation_function="os.system"), "no GPT-2 model that can be built"),
        ("config.json", config_with(vocab_size=300), "shape"),
        ("tokenizer.json", with_one_token_more, "418 tokens and the network 417"),
        ("tokenizer.json", lambda _: "[]", "tokenizer in .* cannot be read"),
        ("positive.txt", lambda _: "unheardof\n", "do not belong together"),
        ("model.safetensors", lambda text: text[:100], "cut off"),
    ],
)
def test_what_is_missing_or_damaged_is_told_in_a_sentence(tmp_path, name, change, told):
    path = write_gpt2_folder(tmp_path / "broken")
    file = path / name
    if change is None:
        file.unlink()
        if name == "tokenizer.json":
            (path / "merges.txt").unlink()
            told = r"lacks merges\.txt"
    elif name == "model.safetensors":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.write_text(change(file.read_text()))
    with pytest.raises(BadModelFile, match=told):
        load(path)


def test_code_and_kernels_that_a_configuration_names_are_not_looked_at(tmp_path, expander):
    path = write_gpt2_folder(tmp_path / "sly")
    text = (path / "config.json").read_text()
    sly = config_with(
        auto_map={"AutoModel": "x.Y"}, attn_implementation="x/y", quantization_config={"quant_method": "z"}
    )
    (path / "config.json").write_text(sly(text))
    assert load(path)("a fox", 1) == expander("a fox", 1)
