"""What the phrases will make of a prompt, told without the model: as the loaded model does it."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from core.prompt.plan import explain, plan_images
from core.settings import Settings
from core.text.expansion import Expansions
from core.text.foretold import Foreteller, unknown_to
from core.text.tokenizer import ClipTokenizer
from core.text.vocabulary import Vocabulary, unknown_tokens
from core.weights.files import Catalog
from core.weights.info import CLIP_G, CLIP_L
from core.weights.memory import Memory

CHECKPOINTS = Path(__file__).parents[2] / "models" / "checkpoints"
EMBEDDED = CHECKPOINTS / "easel-emoji-256.safetensors"
L_TABLE = f"{CLIP_L}text_model.embeddings.token_embedding.weight"
G_TABLE = f"{CLIP_G}token_embedding.weight"


@pytest.fixture
def catalog(tmp_path):
    return Catalog([CHECKPOINTS], others={"prompt_expansion": [tmp_path]})


def foretold(catalog, **settings):
    asked = Settings(**{"prompt": "a red fox", "styles": ("Fooocus V2",), "seed": 2**32 + 5, **settings})
    return Foreteller(catalog)(asked, explain(asked), asked.seed)


def test_the_embedded_model_gets_the_text_that_the_engine_will_draw(catalog, tmp_path):
    with safe_open(EMBEDDED, "pt") as file:
        vocabulary = Vocabulary.of(ClipTokenizer(), [file.get_tensor(name) for name in (L_TABLE, G_TABLE)])
    assert unknown_to(EMBEDDED) == vocabulary.unknown
    expansions = Expansions(catalog.files("prompt_expansion"), Memory(torch.device("cpu")))
    expansions.refresh("auto")
    for prompt in ("a red fox", "a pizza\non a table"):
        settings = Settings(prompt=prompt, negative_prompt="glossy", styles=("Fooocus V2",), seed=2**32 + 5)
        [plan] = plan_images(settings)
        text = foretold(catalog, prompt=prompt, negative_prompt="glossy", base_model=EMBEDDED.name)
        assert text == expansions(plan, vocabulary) != prompt


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shared", [900, 2000])
def test_words_are_unknown_to_a_file_as_they_are_to_the_loaded_model(tmp_path, dtype, shared):
    rows = torch.randn(49408, 4, generator=torch.Generator().manual_seed(0))
    rows[:3000, 0] = 0.5  # the same first number is not the same vector
    rows[:shared] = rows[0].clone()
    rows = rows.to(dtype)
    save_file({L_TABLE: rows, "other": torch.zeros(1, dtype=torch.uint8)}, tmp_path / "a.safetensors")
    assert unknown_to(tmp_path / "a.safetensors") == frozenset(unknown_tokens(rows))


def test_what_only_the_loaded_models_can_tell_is_not_told(catalog, tmp_path):
    assert foretold(catalog) == foretold(catalog, expander="phrases") is not None
    assert foretold(catalog, expander="gpt2") is None
    assert foretold(catalog, text_encoder_l="own.safetensors") is None
    assert foretold(catalog, base_model="gone.safetensors") is None
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "alone.safetensors")
    assert foretold(Catalog([tmp_path]), base_model="alone.safetensors") is None  # no encoders
    (tmp_path / "fooocus_expansion").mkdir()
    (tmp_path / "fooocus_expansion" / "pytorch_model.bin").write_bytes(b"")
    assert foretold(catalog) is None
    assert foretold(catalog, expander="phrases") is not None
