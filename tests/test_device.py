"""Which device and which number types are chosen, on machines that are made up."""

import pytest
import torch

from core import device as module
from core.device import DeviceChoice, bf16_pays, choose_device, describe, fp16_allowed
from core.errors import BadConfig

GIB = 2**30


@pytest.fixture
def machine(monkeypatch):
    """A machine with the GPUs that the test says, and a CPU that is good at bf16 or not."""

    def machine(gpus=(), mps=False, xpu=False, bf16=False, archs=("sm_80", "sm_90", "compute_90"), free=20 * GIB):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: gpus[d if isinstance(d, int) else d.index][0])
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda d: gpus[d if isinstance(d, int) else d.index][1]
        )
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(archs))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (free, 24 * GIB))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu)
        monkeypatch.setattr(module, "bf16_pays", lambda: bf16)

    return machine


A100 = ("NVIDIA A100", (8, 0))


def types(device):
    return device.torch_device.type, device.unet_dtype, device.vae_dtype


def test_cuda_comes_before_mps_and_mps_before_the_cpu(machine):
    machine(gpus=[A100], mps=True)
    assert choose_device().torch_device == torch.device("cuda", 0)
    machine(mps=True)
    assert choose_device().torch_device.type == "mps"
    machine()
    assert choose_device().torch_device.type == "cpu"


def test_a_torch_for_intel_gpus_is_told_that_they_are_not_used(machine):
    machine(xpu=True)
    device = choose_device()
    assert device.torch_device.type == "cpu"
    assert device.warnings == ("Easel cannot compute on Intel GPUs yet. Pictures are made on the CPU.",)
    assert not choose_device(DeviceChoice(device="cpu")).warnings


@pytest.mark.parametrize("bf16, unet", [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bf16_only_where_that_is_faster(machine, bf16, unet):
    machine(bf16=bf16)
    assert types(choose_device()) == ("cpu", unet, torch.float32)


def test_a_new_gpu_has_fp16_for_the_network_and_bf16_for_the_vae(machine):
    machine(gpus=[A100])
    device = choose_device()
    assert types(device) == ("cuda", torch.float16, torch.bfloat16)
    assert device.text_dtype is None and device.vae_device == device.torch_device


def test_an_older_gpu_decodes_in_fp32(machine):
    machine(gpus=[("NVIDIA T4", (7, 5))], archs=["sm_75"])
    assert types(choose_device()) == ("cuda", torch.float16, torch.float32)


@pytest.mark.parametrize(
    "name, major, free, allowed",
    [
        ("NVIDIA H200", 9, 140 * GIB, True),
        ("NVIDIA GeForce RTX 2060", 7, 6 * GIB, True),
        ("NVIDIA GeForce GTX 1660 Ti", 7, 6 * GIB, False),
        ("NVIDIA T1000 8GB", 7, 8 * GIB, False),
        ("NVIDIA GeForce GTX 1080", 6, 8 * GIB, True),  # no room for fp32
        ("NVIDIA GeForce GTX 1080", 6, 24 * GIB, False),
        ("Tesla P100", 6, 16 * GIB, False),
        ("Tesla M60", 5, 8 * GIB, False),
    ],
)
def test_fp16_is_allowed_where_the_card_is_good_at_it(name, major, free, allowed):
    assert fp16_allowed(name, major, free) is allowed


def test_what_the_user_asks_for_is_done(machine):
    machine(gpus=[A100, A100])
    choice = DeviceChoice(
        device="cuda:1", unet_precision="fp32", vae_precision="fp16", clip_precision="bf16", vae_in_cpu=True
    )
    device = choose_device(choice)
    assert device.torch_device == torch.device("cuda", 1)
    assert (device.unet_dtype, device.vae_dtype, device.text_dtype) == (torch.float32, torch.float16, torch.bfloat16)
    assert device.vae_device.type == "cpu"
    assert any("fp16" in sentence for sentence in device.warnings)
    assert choose_device(DeviceChoice(gpu_device_id=1)).torch_device.index == 1
    assert choose_device(DeviceChoice(device="cpu")).torch_device.type == "cpu"


def test_a_device_that_is_not_there_is_told(machine):
    machine()
    for wanted, words in (
        ("cuda", "finds no GPU"),
        ("mps", "no Apple GPU"),
        ("tpu", "must be auto"),
        ("cuda:x", "must be"),
    ):
        with pytest.raises(BadConfig, match=words):
            choose_device(DeviceChoice(device=wanted))
    machine(gpus=[A100])
    with pytest.raises(BadConfig, match="no GPU number 3; this machine has 1"):
        choose_device(DeviceChoice(device="cuda:3"))


def test_floats_of_8_bits_on_an_apple_gpu_are_told(machine):
    machine(mps=True)
    for part, precision in (("unet", "fp8"), ("unet", "fp8-e5m2"), ("clip", "fp8")):
        with pytest.raises(BadConfig, match=f"{part}_precision is '{precision}', and an Apple GPU"):
            choose_device(DeviceChoice(**{f"{part}_precision": precision}))
    assert choose_device(DeviceChoice(unet_precision="int8")).unet_storage == torch.int8


def test_a_gpu_that_the_build_of_torch_does_not_know_is_left_alone(machine):
    machine(gpus=[("Old Card", (5, 0))], archs=["sm_80", "compute_90"])
    device = choose_device()
    assert device.torch_device.type == "cpu"
    assert any("Old Card" in sentence and "CPU" in sentence for sentence in device.warnings)
    with pytest.raises(BadConfig, match="Old Card"):
        choose_device(DeviceChoice(device="cuda"))


@pytest.mark.parametrize(
    ("units", "pays"),
    [
        ({"avx512_bf16": True, "amx_bf16": False, "avx2": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False, "avx512_f": True, "num_sockets": 2}, False),
        ({}, False),
    ],
)
def test_bf16_pays_where_the_processor_has_units_for_it(monkeypatch, units, pays):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert bf16_pays() is pays


def test_threads_are_set_when_asked_for(machine):
    machine()
    before = torch.get_num_threads()
    try:
        choose_device(DeviceChoice(device="cpu", threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_description_is_for_people(machine):
    machine(bf16=True)
    report = describe(choose_device())
    assert (
        report.device == "cpu" and report.unet == "bf16" and report.vae == "fp32 on cpu" and report.text == "as stored"
    )
    assert torch.__version__ in report.torch_build
    assert 0 < report.free_memory <= report.total_memory
    machine(gpus=[A100])
    report = describe(choose_device())
    assert (report.name, report.free_memory, report.total_memory) == ("NVIDIA A100", 20 * GIB, 24 * GIB)
