"""Who is on the device, on a CPU with a budget: what counts is where weights are, and what a budget leaves room for."""

import errno
import sys

import psutil
import pytest
import torch
from torch import nn

from core.errors import out_of_memory
from core.models.configs import TINY
from core.models.unet import UNet
from core.weights import streaming
from core.weights.memory import Memory, Way, sampling_bytes
from core.weights.streaming import Streamed, bytes_of, streamable, tensors_of

CPU = torch.device("cpu")
MIB = 2**20


def network(kilobytes=256):
    return nn.Linear(kilobytes, 256, bias=False).requires_grad_(False)


def here(memory, module):
    return all(tensor in memory._rest for tensor in tensors_of(module))


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(TINY).eval().requires_grad_(False)


def test_the_network_used_longest_ago_leaves_first():
    memory = Memory(CPU, 1024 * 1024)  # an eighth is left free
    first, second, third = (network() for _ in range(3))
    for module in (first, second, third):
        memory.bring(module)
    assert all(here(memory, module) for module in (first, second, third))
    memory.bring(first)
    memory.bring(fourth := network())
    assert [here(memory, module) for module in (first, second, third, fourth)] == [True, False, True, True]


def test_room_is_made_for_the_work_as_well():
    memory = Memory(CPU, 1024 * 1024)
    first, second = network(), network()
    memory.bring(first)
    memory.bring(second, working=512 * 1024)
    assert not here(memory, first) and here(memory, second)


def test_what_is_brought_beside_others_moves_none_off_and_is_the_first_to_leave():
    memory = Memory(CPU, 1024 * 1024)
    work, small, big = network(512), network(64), network(512)
    memory.bring(work)
    assert not memory.bring_beside(big) and here(memory, work) and not here(memory, big)
    assert not memory.bring_beside(small, working=512 * 1024)
    before = memory.room()
    assert memory.bring_beside(small) and memory.bring_beside(small)
    assert memory.room() == before - 64 * 1024 and here(memory, work) and here(memory, small)
    memory.bring(network(384))
    assert not here(memory, small) and here(memory, work)
    assert Memory(CPU).bring_beside(small, working=2**60)


def test_a_cpu_without_a_budget_keeps_no_books():
    memory = Memory(CPU)
    module = network()
    memory.bring(module, working=2**60)
    assert not memory._rest and not memory._places


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_what_stays_what_comes_and_goes_and_the_work_keep_within_the_budget(unet, share):
    size, working = bytes_of(list(tensors_of(unet))), 100_000
    budget = int((size * share + working) * 8 / 7)
    memory = Memory(CPU, budget)
    memory.bring(unet, working)
    [place] = memory._places
    assert 0 < place.share < 1 and memory.room() >= working
    staying = bytes_of([tensor for tensor in tensors_of(unet) if tensor in memory._rest])
    assert staying + place.streamed.size + working <= budget
    assert staying > 0.5 * (size * share - place.streamed.size)  # and makes use of it
    assert here(memory, unet.time_embed) and here(memory, unet.out)  # what stands outside the lists always stays


def test_a_little_more_room_moves_no_blocks_and_much_more_does(unet):
    size = bytes_of(list(tensors_of(unet)))
    memory = Memory(CPU, int(0.6 * size))
    memory.bring(unet)
    [place] = memory._places
    streamed, share = place.streamed, place.share
    for budget, same in ((0.6, True), (0.65, True), (0.5, False), (0.9, False), (3.0, False)):
        memory.budget = int(budget * size)
        memory.bring(unet)
        assert (place.streamed is streamed) == same
        streamed = place.streamed
    assert streamed is None and place.share == 1 and share < 0.6


def test_blocks_that_come_and_go_are_spread_over_the_whole_network(unet):
    memory = Memory(CPU, 8 * bytes_of(list(tensors_of(unet))))
    memory._most[unet] = {0: 0.5}
    memory.bring(unet)
    blocks, [place] = streamable(unet), memory._places
    coming = [block in place.coming for block in blocks]
    assert any(coming[:4]) and any(coming[-4:]) and 0.3 < sum(coming) / len(coming) < 0.7


def test_leaving_the_device_gives_back_the_very_tensors_that_rested(unet):
    memory = Memory(CPU, 100 * MIB)
    unet.half()
    before = [tensor.data_ptr() for tensor in tensors_of(unet)]
    memory.bring(unet, dtype=torch.bfloat16)
    assert unet.out[2].weight.dtype == unet.middle_block[0].in_layers[2].weight.dtype == torch.bfloat16
    memory.rest(unet)
    assert [tensor.data_ptr() for tensor in tensors_of(unet)] == before
    assert unet.out[2].weight.dtype == torch.float16


def test_weights_that_were_patched_on_the_device_keep_their_patches_when_they_leave(unet):
    from core.weights.patched import _PATCHES

    memory = Memory(CPU, 100 * MIB)
    unet.half()
    memory.bring(unet, dtype=torch.float32)
    weight, other = unet.out[2].weight, unet.out[0].weight
    with torch.no_grad():
        weight += 1
    weight.__dict__[_PATCHES] = ("a patch",)
    patched, untouched = weight.clone(), other.clone()
    memory.rest(unet)
    assert torch.equal(weight, patched) and torch.equal(other.float(), untouched)


def test_a_network_that_was_given_up_frees_its_room_and_others_stay():
    memory = Memory(CPU, 1024 * 1024)
    first, second = network(), network()
    memory.bring(first)
    memory.bring(second)
    before = memory.room()
    memory.drop(first)
    assert memory.room() == before + 256 * 1024 and here(memory, second)
    memory.forget()
    assert memory.room() == 1024 * 1024


def test_ways_are_gone_in_their_order_and_a_failed_one_is_not_tried_again_at_that_size():
    memory, tried = Memory(CPU), []

    def ways(size):
        def go(name):
            tried.append(name)
            if name == "whole" and size >= 100:
                raise torch.OutOfMemoryError("out of memory")
            return name

        return [Way("whole", size, lambda: go("whole")), Way("parts", size // 10, lambda: go("parts"), "In parts now.")]

    assert [memory.run(nn.Identity(), ways(size)) for size in (50, 100, 120, 99)] == [
        "whole",
        "parts",
        "parts",
        "whole",
    ]
    assert tried == ["whole", "whole", "parts", "parts", "whole"]
    assert memory.take_notices() == ["In parts now."] and not memory.take_notices()


def test_a_way_that_the_budget_has_no_room_for_is_not_even_tried():
    memory = Memory(CPU, MIB)
    for differs, told in ((False, []), (True, ["In parts now."])):  # only what changes the picture has to be told
        ways = [
            Way("whole", 2 * MIB, lambda: "whole"),
            Way("parts", 2 * MIB, lambda: "parts", "In parts now.", differs=differs),
        ]
        for _ in range(2):
            assert memory.run(nn.Identity(), ways) == "parts" and memory.take_notices() == told


def test_what_has_no_size_is_tried_again():
    memory, tried = Memory(CPU), []

    def whole():
        tried.append("whole")
        if len(tried) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return "whole"

    ways = [Way("whole", 0, whole), Way("parts", 0, lambda: "parts", "In parts now.")]
    assert [memory.run(nn.Identity(), ways) for _ in range(2)] == ["parts", "whole"]


def test_blocks_that_came_and_went_for_a_large_picture_stay_for_smaller_ones(unet):
    memory = Memory(CPU, 64 * bytes_of(list(tensors_of(unet))))
    failures = 2

    def compute():
        nonlocal failures
        if failures:
            failures -= 1
            raise torch.OutOfMemoryError("out of memory")

    def share(working):
        memory.bring(unet, working)
        [place] = memory._places
        return place.share

    memory.bring(unet, 1000)
    memory.run(unet, [Way("compute", 1000, compute)])
    assert [share(working) for working in (1000, 500, 1500, 999)] == [0.25, 1, 0.25, 1]
    failures = 1
    memory.run(unet, [Way("compute", 999, compute)])
    assert [share(working) for working in (999, 1000, 998)] == [0.5, 0.25, 1]


def test_what_was_found_without_a_size_is_not_remembered(unet):
    memory, failures = Memory(CPU, 64 * bytes_of(list(tensors_of(unet)))), [1]

    def compute():
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError("out of memory")

    memory.bring(unet)
    memory.run(unet, [Way("compute", 0, compute)])
    memory.bring(unet)
    [place] = memory._places
    assert place.share == 1


def windows_error(number):
    error = OSError("The paging file is too small for this operation to complete")
    error.winerror = number
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 7247757312 bytes."), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (windows_error(1455), True),
        (windows_error(2), False),
        (FileNotFoundError(errno.ENOENT, "out of memory.safetensors"), False),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised_on_every_device(error, expected):
    assert out_of_memory(error) == expected


def test_the_estimate_of_sampling_is_the_references():
    """1 MiB for 50 bytes of latent cells: 1024 x 1024 in 16 bits, both sides of guidance."""
    assert sampling_bytes(2, 128, 128, 2) == pytest.approx(1310.72 * MIB, rel=1e-6)


def test_on_cuda_copies_wait_for_the_last_use_and_computation_waits_for_copies(unet, monkeypatch):
    """The order of events on a machine that is made up: two streams that note what they are told."""
    log = []

    class Stream:
        def __init__(self, device=None):
            self.name = "copies" if device is not None else "work"

        def wait_event(self, event):
            log.append((self.name, "waits for", event.name, event.times))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Event:
        made = 0

        def __init__(self):
            self.name, self.times = ("written", "released")[Event.made % 2] + str(Event.made // 2), 0
            Event.made += 1

        def record(self, stream):
            self.times += 1
            log.append((stream.name, "reaches", self.name, self.times))

        def synchronize(self):
            log.append(("host", "waits for", self.name, self.times))

    work, empty = Stream(), torch.empty
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: work)
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kinds: empty(*size, **kinds))
    monkeypatch.setattr(streaming, "_place", lambda size, device: streaming._CudaPlace(size, device))
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([1.0]), torch.randn(1, 7, TINY.context_dim), torch.randn(1, 1632)
    plain = unet(*inputs)
    streamed = Streamed(streamable(unet), CPU)
    for _ in range(2):
        assert torch.equal(unet(*inputs), plain)
    streamed.close()
    for place in "01":
        written = [entry for entry in log if entry[2] == f"written{place}"]
        released = [entry for entry in log if entry[2] == f"released{place}"]
        uses = sum(entry[1] == "reaches" for entry in written)
        assert uses > 3
        assert ("host", "waits for", f"written{place}", uses) in log  # the memory is free only after the last one
        for use in range(uses):  # each copy: after the use before it was over, and before the next use
            assert ("copies", "waits for", f"released{place}", use + 1) in released
            at = log.index(("copies", "waits for", f"released{place}", use + 1))
            assert log.index(("host", "waits for", f"written{place}", use)) < at
            assert at < log.index(("copies", "reaches", f"written{place}", use + 1))
            used = ("work", "waits for", f"written{place}", use + 1)
            if used in log:  # the last one fetched ahead is not
                assert log.index(("copies", "reaches", f"written{place}", use + 1)) < log.index(used)
                assert log.index(used) < log.index(("work", "reaches", f"released{place}", use + 2))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators have no such call")
def test_what_lies_free_between_tensors_in_use_goes_back_to_the_system():
    def resident():
        return psutil.Process().memory_info().rss

    tensors = [torch.ones(20_000) for _ in range(2000)]  # 160 MB
    kept = tensors[::8]
    del tensors
    before = resident()
    Memory(CPU).empty_cache()
    assert before - resident() > 100 * MIB
    assert all(bool((tensor == 1).all()) for tensor in kept)
