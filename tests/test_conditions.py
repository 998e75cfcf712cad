"""What each kind of network is told, against the specification's figures and an encoder of transformers."""

from dataclasses import replace

import pytest
import torch
from torch.nn import LayerNorm

from core.conditions import Conditions, refiner_condition, sd15_condition, sdxl_condition, sdxl_refiner_condition
from core.errors import BadSetting
from core.models.clip import CLIPText
from core.models.configs import TINY_CLIP_L
from core.models.unet import sinusoid
from core.settings import Settings
from core.text.encode import TextConditions

SETTINGS = Settings(width=1152, height=896)


@pytest.fixture
def text():
    generator = torch.Generator().manual_seed(0)
    return TextConditions(torch.randn(1, 77, 160, generator=generator), torch.randn(1, 96, generator=generator))


@pytest.mark.parametrize(("positive", "score"), [(True, 6.0), (False, 2.5)])
def test_the_sdxl_refiner_gets_biggs_features_the_size_and_an_aesthetic_score(text, positive, score):
    told = sdxl_refiner_condition(96, SETTINGS, text, positive)
    assert torch.equal(told.tokens, text.tokens[:, :, 64:])
    numbers = torch.tensor([896.0, 1152.0, 0.0, 0.0, score])
    assert torch.equal(told.y, torch.cat([text.pooled[0], sinusoid(numbers, 256).flatten()])[None])
    assert told.y_end is None  # neither scaled nor timed


def test_sd15_gets_clip_ls_features_with_its_last_norm_and_no_vector(text):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        clip_l = CLIPText(TINY_CLIP_L).half()
        norm = LayerNorm(64)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    clip_l.text_model.final_layer_norm.load_state_dict(norm.half().state_dict())
    clip_l.requires_grad_(False)
    told = sd15_condition(clip_l, text)
    expected = norm.float()(text.tokens[:, :, :64]).detach()
    torch.testing.assert_close(told.tokens, expected, rtol=1e-5, atol=1e-5)
    assert told.y is None and told.tokens.dtype == torch.float32


def test_sdxl_as_refiner_is_told_the_same_as_the_base_model(text):
    for positive in (True, False):
        base, refiner = (
            sdxl_condition(SETTINGS, text, positive),
            refiner_condition("sdxl", 160, None, SETTINGS, text, positive),
        )
        assert torch.equal(base.tokens, refiner.tokens) and base.switch == refiner.switch
        assert torch.equal(base.y, refiner.y) and torch.equal(base.y_end, refiner.y_end)


def test_the_two_sides_have_their_own_scale(text):
    """1152 x 896 with 1.5 and 0.8: positive 1344 x 1728, negative 716 x 921, later 896 x 1152 for both."""
    for positive, size in ((True, (1344.0, 1728.0)), (False, (716.0, 921.0))):
        told = sdxl_condition(SETTINGS, text, positive)
        assert torch.equal(told.y[0, 96 : 96 + 512], sinusoid(torch.tensor(size), 256).flatten())
        assert torch.equal(told.y_end[0, 96 : 96 + 512], sinusoid(torch.tensor([896.0, 1152.0]), 256).flatten())


def test_strict_sizes_end_at_0_with_the_rounded_one_from_the_start(text):
    odd = Settings(width=1000, height=520, adm_scaler_end=0.0)
    for strict, size in ((False, (520.0, 1000.0)), (True, (512.0, 1024.0))):
        told = sdxl_condition(replace(odd, strict_compatibility=strict), text, True)
        assert torch.equal(told.y_at(0.0)[0, 96 : 96 + 512], sinusoid(torch.tensor(size), 256).flatten())


def test_a_side_that_is_not_evaluated_is_told_nothing(text):
    calls = []
    told = Conditions(text, None).told(
        lambda text, positive: calls.append(positive) or sdxl_condition(SETTINGS, text, positive)
    )
    assert told[1] is None and calls == [True]


def test_without_a_pooled_vector_the_base_is_no_sdxl(text):
    with pytest.raises(BadSetting, match="no SDXL"):
        sdxl_condition(SETTINGS, TextConditions(text.tokens, None), True)
