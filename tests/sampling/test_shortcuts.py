"""Which evaluations run whole, and what stands in for the inner blocks in the others."""

import pytest
import torch

from core.sampling.samplers import SAMPLERS
from core.sampling.shortcuts import StepCache, Turns


def whole_steps(every, total):
    turns, whole = Turns(every), []
    for step in range(total):
        whole.append(turns.whole)
        turns.done(step, total)
    return [step for step, is_whole in enumerate(whole) if is_whole]


@pytest.mark.parametrize(
    ("every", "total", "wanted"),
    [
        (1, 4, [0, 1, 2, 3]),
        (2, 7, [0, 2, 4, 6]),
        (2, 8, [0, 2, 4, 6, 7]),
        (3, 10, [0, 3, 6, 9]),
        (5, 9, [0, 5, 8]),
        (5, 1, [0]),
        (3, 2, [0, 1]),
    ],
)
def test_the_first_step_every_nth_and_the_last_one_run_whole(every, total, wanted):
    assert whole_steps(every, total) == wanted


def test_steps_beyond_the_announced_end_run_whole():
    turns = Turns(4)
    for step in range(20):
        turns.done(step, max(10, step + 1))
        assert turns.whole == (step + 1 in (4, 8) or step >= 8)


def cache_at(level, turns=None):
    cache = StepCache(turns or Turns(2))
    at(cache, level)
    return cache


def at(cache, level):
    cache.around(lambda x, sigma: x)(torch.zeros(1), torch.tensor(float(level)))


X, TEXT, OTHER = torch.zeros(2, 4, 8, 8), torch.zeros(2, 7, 3), torch.zeros(2, 7, 3)
FEATURE = torch.ones(2, 5, 8, 8)


def test_a_map_is_there_for_its_own_text_only():
    turns = Turns(2)
    cache = cache_at(5.0, turns)
    assert cache.of(TEXT, X) is None
    cache.keep(TEXT, [FEATURE])
    assert cache.of(TEXT, X) is None  # the step under way runs whole to its end
    turns.done(0, 10)
    at(cache, 4.0)
    assert cache.of(TEXT, X) is FEATURE
    assert cache.of(OTHER, X) is None  # equal numbers, another text


def test_a_map_of_another_shape_or_from_below_is_not_used():
    turns = Turns(2)
    cache = cache_at(5.0, turns)
    cache.keep(TEXT, [FEATURE])
    turns.done(0, 10)
    at(cache, 5.0)
    assert cache.of(TEXT, X) is FEATURE
    assert cache.of(TEXT, X[:, :, 1:]) is None and cache.of(TEXT, X[:1]) is None
    at(cache, 6.0)
    assert cache.of(TEXT, X) is None


def test_rows_that_were_made_one_by_one_are_one_map():
    turns = Turns(2)
    cache = cache_at(5.0, turns)
    cache.keep(TEXT, [FEATURE[:1], 2 * FEATURE[1:]])
    turns.done(0, 10)
    kept = cache.of(TEXT, X)
    assert kept is not None and torch.equal(kept, torch.cat([FEATURE[:1], 2 * FEATURE[1:]]))


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"dpm_fast", "dpm_adaptive"}))
def test_every_sampler_begins_and_ends_with_whole_evaluations_and_leaves_out_many_between(sampler):
    from core.sampling.noise import noise_for
    from core.sampling.prediction import sampling_for
    from core.sampling.schedules import calculate_sigmas

    prediction, _ = sampling_for("karras", "epsilon")
    sigmas = calculate_sigmas(sampler, prediction.table, "karras", 12)
    x, noise = noise_for(sampler, 3, (1, 4, 8, 8), sigmas, torch.device("cpu"))
    turns = Turns(3)
    cache, whole = StepCache(turns), []

    def network(x, sigma):
        inner = cache.of(TEXT, x)
        whole.append(inner is None)
        if inner is None:
            cache.keep(TEXT, [torch.zeros(1, 1, 8, 8)])
        return x * 0.64 / (0.64 + sigma**2)

    total = len(sigmas) - 1
    steps = SAMPLERS[sampler](cache.around(network), x * sigmas[0], sigmas, noise=noise, table=prediction.table)
    for step in steps:
        turns.done(step.index, max(total, step.index + 1))
    assert whole[0] and whole[-1]
    assert whole.count(False) > 0.25 * len(whole)
    if len(whole) == total:  # one evaluation a step
        assert [i for i, is_whole in enumerate(whole) if is_whole] == [0, 3, 6, 9, 11]
