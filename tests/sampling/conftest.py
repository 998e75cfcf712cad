"""Peers that serve as oracles. They are test requirements: if one is missing, its tests fail rather than skip."""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def k_sampling() -> Iterator[types.ModuleType]:
    """k_diffusion.sampling, imported without torchvision and without the package's own __init__ (which wants wandb)."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec and spec.origin, "k-diffusion is a test requirement: pip install --no-deps k-diffusion"
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(Path(spec.origin).parent)]
    vision = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
    functional = types.ModuleType("torchvision.transforms.functional")
    vision["torchvision.transforms"].functional = functional
    vision["torchvision"].transforms = vision["torchvision.transforms"]
    for name, module in (*vision.items(), ("torchvision.transforms.functional", functional)):
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vision[name] = module
    stubs = {**vision, "k_diffusion": package}
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        module = importlib.import_module("k_diffusion.sampling")
    finally:
        for name, original in before.items():
            if original is None:
                del sys.modules[name]
            else:
                sys.modules[name] = original
    yield module
    for name in [name for name in sys.modules if name.startswith("k_diffusion")]:
        del sys.modules[name]
