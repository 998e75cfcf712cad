"""What a model's part in a picture is told of its file and the settings."""

from pathlib import Path

import pytest

from core.settings import Settings
from core.stages import base_prediction, own_table, refiner_prediction
from core.weights.info import ModelInfo


def info(**values):
    return ModelInfo(**{"name": "a", "path": Path("a"), "size": 1, "family": "sdxl", **values})


@pytest.mark.parametrize("understood", [base_prediction, refiner_prediction])
@pytest.mark.parametrize("scheduler", ["karras", "lcm", "tcd", "edm_playground_v2.5"])
def test_q05a_strict_a_stage_knows_the_checkpoints_own_table_under_every_scheduler(understood, scheduler):
    table = own_table(understood, info(), Settings(scheduler=scheduler, strict_compatibility=True))
    assert len(table.sigmas) == 1000
    assert (table.sigma_min, table.sigma_max) == pytest.approx((0.0291672, 14.6146), rel=1e-5)
    assert own_table(understood, info(), Settings(scheduler=scheduler)) is None


@pytest.mark.parametrize("understood", [base_prediction, refiner_prediction])
@pytest.mark.parametrize(("strict", "kinds"), [(False, ["lcm_v", "v"]), (True, ["lcm", "epsilon"])])
def test_strict_the_schedulers_lcm_and_tcd_replace_the_checkpoints_prediction(understood, strict, kinds):
    asked = [Settings(scheduler=name, strict_compatibility=strict) for name in ("lcm", "tcd")]
    assert [understood(info(prediction="v"), settings)[0].kind for settings in asked] == kinds
