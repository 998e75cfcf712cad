"""The latent interposer against its published structure, written out once more in torch's own layers."""

import pytest
import torch
from tiny_refiners import write_interposer
from torch import nn

from core.errors import BadModelFile, ModelNotFound
from core.models.interposer import Interposer
from core.weights.files import Catalog
from core.weights.refiner import load_interposer
from core.weights.sources import INTERPOSER


class LongShort(nn.Module):
    def __init__(self, c_in, norm):
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in) if norm else None
        layers = [nn.Conv2d(c_in, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 3, padding=1), nn.SiLU()]
        self.long = nn.Sequential(*layers, nn.Conv2d(64, 64, 3, padding=1))
        self.short = None if norm else nn.Conv2d(c_in, 64, 3, padding=1)

    def forward(self, x):
        x = self.norm(x) if self.norm else x
        return torch.relu(self.long(x) + (self.short(x) if self.short else x))


def reference():
    net = nn.Module()
    net.head = LongShort(4, norm=False)
    blocks = [LongShort(64, norm=True) for _ in range(12)]
    net.core = nn.Sequential(nn.Upsample(scale_factor=1), *blocks, nn.BatchNorm2d(64), nn.SiLU())
    net.tail = nn.Conv2d(64, 4, 3, padding=1)
    return net.eval()


@pytest.fixture
def folder(tmp_path):
    write_interposer(tmp_path / "vae_approx")
    return tmp_path / "vae_approx"


def files(*folders):
    return Catalog([], others={"vae_approx": folders}).files("vae_approx")


@torch.no_grad()
def test_the_published_file_gives_what_its_published_structure_gives(folder):
    from safetensors.torch import load_file

    theirs = reference()
    theirs.load_state_dict(load_file(folder / INTERPOSER), strict=True)
    latent = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = theirs.tail(theirs.core(theirs.head(latent)))
    torch.testing.assert_close(load_interposer(files(folder))(latent), expected, rtol=1e-5, atol=1e-5)


def test_it_has_the_published_size():
    """5.7 MB of float32, as the file that is offered for download."""
    assert sum(t.numel() for t in Interposer().state_dict().values()) * 4 == pytest.approx(5.7e6, rel=0.02)


def test_the_result_has_the_inputs_type(folder):
    latent = torch.zeros(1, 4, 4, 4, dtype=torch.float16)
    assert load_interposer(files(folder))(latent).dtype == torch.float16


def test_a_missing_file_is_named_with_its_place_source_and_command(tmp_path):
    with pytest.raises(ModelNotFound, match=r"xl-to-v1_interposer-v4\.0\.safetensors.*huggingface") as caught:
        load_interposer(files(tmp_path / "empty"))
    assert str(tmp_path / "empty") in str(caught.value)
    assert f"`python launch.py download {INTERPOSER}`" in str(caught.value)


def test_another_file_of_that_name_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"tail.weight": torch.zeros(4, 64, 3, 3)}, tmp_path / INTERPOSER)
    with pytest.raises(BadModelFile, match="interposer lacks"):
        load_interposer(files(tmp_path))
