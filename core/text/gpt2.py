"""The GPT-2 expander that Fooocus published: folders with its files, and the loop that draws words from it.

The network is transformers' GPT-2, which is imported when a folder is opened and not before. It is built from the few numbers
of config.json that say its size: no code of the folder runs, nothing is fetched, and no random state but its own is used.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor, nn

from core.errors import BadModelFile, BadSetting
from core.prompt.continuation import cleaned
from core.there import is_file
from core.weights.checkpoint import load_part
from core.weights.header import read_header
from core.weights.mapped import MappedFile

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2Model

Check = Callable[[], None]

CHUNK = 75  # tokens: a continued prompt fills what it has begun
TOP_K = 100
NEVER = -8192.0  # added to the logit of a word that must not come
SEEDS = 2**32
WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"
END = "<|endoftext|>"
SPACE = "Ġ"  # how GPT-2's tokens write the blank in front of a word

# What config.json may say of the network. Anything else in it is not looked at.
NUMBERS: Mapping[str, tuple[int, int]] = {
    "vocab_size": (2, 10**6), "n_positions": (1, 10**5), "n_embd": (1, 10**4), "n_layer": (1, 200), "n_head": (1, 200),
}  # fmt: skip
ACTIVATIONS = ("gelu_new", "gelu", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")


@dataclass(frozen=True)
class Gpt2Folder:
    """A folder with a GPT-2 model: its files by name. `name` is its own, for people."""

    path: Path
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path.name

    @property
    def stamp(self) -> tuple[object, ...]:
        """Names the state of its files."""
        states = ((path, path.stat()) for _, path in sorted(self.files.items()))
        return tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)

    def wanted(self, *names: str) -> Path:
        """The first of `names` that is there. Raises BadModelFile if none is."""
        for name in names:
            if name in self.files:
                return self.files[name]
        raise BadModelFile(
            f"{self.path} lacks {' or '.join(names)}. A GPT-2 expander's folder has {WEIGHTS}, config.json, tokenizer.json "
            "(or vocab.json and merges.txt) and positive.txt; copy the missing files from where the model came from."
        )


def gpt2_folders(paths: Mapping[str, Path]) -> list[Gpt2Folder]:
    """The folders of those of `paths` (of files, by name) that are a language model's weights, sorted by name.

    What else lies in them is asked of the disk: of two folders that are called alike `paths` has each name once.
    """
    places = {path.parent for path in paths.values() if path.name in (WEIGHTS, PICKLE) and is_file(path)}
    found = [Gpt2Folder(place, {path.name: path for path in place.iterdir() if is_file(path)}) for place in places]
    return sorted(found, key=lambda folder: (folder.name.lower(), str(folder.path)))


class NextToken(nn.Module):
    """GPT-2 with its head, which is the table of tokens again. One module, so that its weights come and go as one."""

    def __init__(self, network: GPT2Model) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: list[int], past: Any) -> tuple[Tensor, Any]:
        """The logits (vocabulary,) of what follows `ids`, which follow those that made `past`; and the new `past`."""
        table = self.network.wte.weight
        # By place, not by name: transformers 5.24 calls `cache` what was `past_key_values` before.
        hidden, past = self.network(torch.tensor([ids], device=table.device), past, use_cache=True)[:2]
        return F.linear(hidden[:, -1], table)[0].float(), past


class Gpt2Expander:
    """Continues prompts by the words of a list, one after the other, as GPT-2 finds them likely."""

    def __init__(
        self, network: GPT2Model, tokenizer: Tokenizer, words: list[str], folder: Path, *, cached: int = 64
    ) -> None:
        """`words` are those that may be added; only such as are a single token count. Raises BadModelFile if none is.

        `folder` is what errors name.
        """
        self.network = NextToken(network)
        self._folder = folder
        self._positions: int = network.config.n_positions
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        wanted = {SPACE + word.strip().lower() for word in words if word.strip()}
        allowed = {number for token, number in vocabulary.items() if token in wanted}
        if not allowed or "," not in vocabulary:
            raise BadModelFile("The expander's list of words and its tokenizer do not belong together.")
        self._comma: int = vocabulary[","]
        self._bias = torch.full((network.config.vocab_size,), NEVER)
        self._bias[sorted(allowed)] = 0.0
        self._cached = cached
        self._cache: OrderedDict[tuple[str, int, str], str] = OrderedDict()

    @classmethod
    def load(cls, folder: Gpt2Folder, dtype: torch.dtype = torch.float32) -> Gpt2Expander:
        """The expander in `folder`, on the CPU. Raises BadModelFile for a pickle and for what is missing or damaged."""
        if WEIGHTS not in folder.files:
            raise BadModelFile(
                f"{folder.path / PICKLE} is a pickle. Such files can run any program when they are opened, so Easel reads "
                f'{WEIGHTS} instead. This makes a folder with one: python launch.py convert "{folder.path}"'
            )
        config = folder.wanted("config.json")
        words = folder.wanted("positive.txt")
        tokenizer = _tokenizer(folder)
        network = _network(folder.files[WEIGHTS], _config(config), dtype)
        if tokenizer.get_vocab_size() > network.config.vocab_size:
            raise BadModelFile(
                f"{folder.path}: the tokenizer has {tokenizer.get_vocab_size()} tokens and the network "
                f"{network.config.vocab_size}. They do not belong together."
            )
        return cls(network, tokenizer, _text(words).splitlines(), folder.path)

    def __call__(self, prompt: str, seed: int, *, draw_on: str = "cpu", check: Check | None = None) -> str:
        """`prompt` and the words that follow it, from the cache if they were drawn before; "" for an empty prompt.

        With `draw_on` "cpu" chance is the same on every device; with "device" it comes from the network's own, as in the
        program that this is from. `check` may raise between two words. Raises BadModelFile where the network gives NaN.
        """
        text = cleaned(prompt)
        if not text:
            return ""
        key = (text, seed % SEEDS, draw_on)
        if key not in self._cache:
            self._cache[key] = self._continued(text, seed % SEEDS, draw_on, check)
            if len(self._cache) > self._cached:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def remembers(self, prompt: str, seed: int, draw_on: str = "cpu") -> bool:
        """Whether the network need not run for this one."""
        return (cleaned(prompt), seed % SEEDS, draw_on) in self._cache

    @torch.no_grad()
    def _continued(self, text: str, seed: int, draw_on: str, check: Check | None) -> str:
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids = list(self._tokenizer.encode(f"{clean},", add_special_tokens=False).ids)
        limit = min(CHUNK * math.ceil(len(ids) / CHUNK), self._positions)
        if len(ids) >= limit:
            return clean
        fresh, past, chance = ids, None, None
        while len(ids) < limit:
            if check:
                check()
            logits, past = self.network(fresh, past)
            if chance is None:
                chance = torch.Generator(logits.device if draw_on == "device" else "cpu").manual_seed(seed)
            fresh = [self._drawn(logits.to(chance.device), ids, chance)]
            ids = ids + fresh
        return cleaned(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _drawn(self, logits: Tensor, ids: list[int], chance: torch.Generator) -> int:
        """The next token: of the list, not yet in `ids`, or a comma; drawn from the TOP_K likeliest."""
        if not logits.isfinite().all():
            raise BadModelFile(
                f"The GPT-2 model in {self._folder} is damaged: it gives NaN or infinity. Copy it again from where the "
                "model came from."
            )
        bias = self._bias.clone()
        bias[ids] = NEVER
        bias[self._comma] = 0.0
        scores = logits + bias.to(logits.device)
        least = scores.topk(min(TOP_K, len(scores))).values[-1]
        shares = scores.masked_fill(scores < least, -math.inf).softmax(dim=0)
        return int(torch.multinomial(shares[None], 1, generator=chance).item())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}. Copy it again from where the model came from.") from None


def _config(path: Path) -> GPT2Config:
    """The network's size. Raises BadModelFile for another kind of model and for sizes that cannot be."""
    try:
        values: Any = json.loads(_text(path))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("model_type", "gpt2") != "gpt2":
        raise BadModelFile(f"{path} does not describe a GPT-2 model, which the prompt expander has to be.")
    sizes: dict[str, Any] = {name: values.get(name) for name in NUMBERS}
    inner, activation = values.get("n_inner"), values.get("activation_function", "gelu_new")
    numbers = [*((sizes[name], low, high) for name, (low, high) in NUMBERS.items())]
    numbers += [] if inner is None else [(inner, 1, 10**5)]
    for number, low, high in numbers:
        if type(number) is not int or not low <= number <= high:
            raise BadModelFile(f"{path} has impossible sizes for a GPT-2 model: {sizes}. Copy it again.")
    if sizes["n_embd"] % sizes["n_head"] or activation not in ACTIVATIONS:
        raise BadModelFile(f"{path} describes no GPT-2 model that can be built: {sizes}, {str(activation)[:40]!r}.")
    try:
        from transformers import GPT2Config
    except ImportError as error:
        raise BadSetting(
            "The GPT-2 prompt expander needs the package transformers, which is not installed. Install it "
            '(python -m pip install "transformers>=5.20,<6"), or set expander to phrases.'
        ) from error
    epsilon = values.get("layer_norm_epsilon", 1e-5)
    return GPT2Config(
        **sizes,
        n_inner=inner,
        activation_function=activation,
        layer_norm_epsilon=float(epsilon) if isinstance(epsilon, (int, float)) else 1e-5,
        scale_attn_weights=bool(values.get("scale_attn_weights", True)),
        scale_attn_by_inverse_layer_idx=bool(values.get("scale_attn_by_inverse_layer_idx", False)),
        bos_token_id=None,
        eos_token_id=None,
    )


def _network(path: Path, config: GPT2Config, dtype: torch.dtype) -> GPT2Model:
    from transformers import GPT2Model

    header = read_header(path)
    entries = {
        name: entry
        for name, entry in (header.part("transformer.") or header.tensors).items()
        if not name.endswith((".attn.bias", ".attn.masked_bias")) and name != "lm_head.weight"  # masks; the table again
    }
    file = MappedFile(header, torch.device("cpu"))
    return load_part(file, "the GPT-2 model", entries, lambda _: GPT2Model(config), dtype).eval().requires_grad_(False)


def _tokenizer(folder: Gpt2Folder) -> Tokenizer:
    names = ("tokenizer.json",) if "tokenizer.json" in folder.files else ("vocab.json", "merges.txt")
    files = [folder.wanted(*((name,) if len(names) == 1 else (name, "tokenizer.json"))) for name in names]
    try:
        if len(files) == 1:
            tokenizer = Tokenizer.from_file(str(files[0]))
        else:
            tokenizer = Tokenizer(BPE.from_file(str(files[0]), str(files[1])))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            if END in tokenizer.get_vocab():
                tokenizer.add_special_tokens([END])
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise BadModelFile(
            f"The tokenizer in {folder.path} cannot be read: {error}. Copy it again from where the model came from."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
