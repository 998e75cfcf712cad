"""What the LoRA rows get to know of a file."""

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.errors import BadModelFile
from core.private_paths import without
from core.weights.lora_info import LoraInfo
from webui.lora_routes import lora_routes
from webui.visitors import COOKIE


def client_of(app):
    return TestClient(Starlette(routes=lora_routes(app)), cookies={COOKIE: "m" * 43})


def test_what_is_wrong_with_a_file_is_told_as_visitors_may_read_it(app):
    def damaged(name):
        raise BadModelFile(f"/srv/easel/loras/{name} is damaged.")

    client = client_of(replace(app, lora_info=damaged, shown=without({Path("/srv/easel"): "…"})))
    answer = client.get("/easel/lora", params={"name": "a.safetensors"})
    assert answer.json() == {"problem": "…/loras/a.safetensors is damaged."}


@pytest.mark.parametrize(
    ("family", "fits", "refines"),
    [("sdxl", True, False), ("", True, False), ("sd15", False, True), ("sdxl-refiner", False, True), ("flux", False, False)],
)  # fmt: skip
def test_a_row_is_told_whether_its_file_acts_on_the_base_model_or_on_a_refiner(app, family, fits, refines):
    info = LoraInfo(name="a.safetensors", path=Path("a.safetensors"), size=1, family=family)
    client = client_of(replace(app, lora_info=lambda name: info))
    facts = client.get("/easel/lora", params={"name": "a.safetensors"}).json()
    assert (facts["fits"], facts["refines"]) == (fits, refines)
