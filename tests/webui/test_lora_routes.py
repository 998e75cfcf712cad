"""What the LoRA rows get to know of a file."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.weights.lora_info import LoraInfo
from webui.lora_routes import lora_routes
from webui.visitors import COOKIE


@pytest.mark.parametrize(
    ("family", "fits", "refines"),
    [("sdxl", True, False), ("", True, False), ("sd15", False, True), ("sdxl-refiner", False, True), ("flux", False, False)],
)  # fmt: skip
def test_a_row_is_told_whether_its_file_acts_on_the_base_model_or_on_a_refiner(family, fits, refines):
    info = LoraInfo(name="a.safetensors", path=Path("a.safetensors"), size=1, family=family)
    client = TestClient(Starlette(routes=lora_routes(list, lambda name: info)), cookies={COOKIE: "m" * 43})
    facts = client.get("/easel/lora", params={"name": "a.safetensors"}).json()
    assert (facts["fits"], facts["refines"]) == (fits, refines)
