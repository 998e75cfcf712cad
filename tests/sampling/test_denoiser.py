import pytest
import torch
from torch import Tensor

from core.sampling.denoiser import Condition, fit_together, network_denoiser
from core.sampling.prediction import Prediction
from core.sampling.tables import EDMTable, discrete_table

PREDICTION = Prediction("epsilon", discrete_table())


class Recorder:
    """A network whose noise estimate is the mean of each row's tokens plus the mean of its vector; keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []

    def __call__(self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None) -> Tensor:
        self.calls.append((x, timestep, context, y))
        said = context.mean(dim=(1, 2)) + (0 if y is None else y.mean(1))
        return said.view(-1, 1, 1, 1).expand_as(x)


def condition(value: float, length: int = 77, y: float | None = None, width: int = 8) -> Condition:
    return Condition(torch.full((1, length, width), value), None if y is None else torch.full((1, 6), y))


def test_two_conditions_share_one_call_in_the_order_given():
    network = Recorder()
    x, sigma = torch.zeros(1, 4, 8, 8), torch.tensor(2.0)
    first, second = network_denoiser(network, PREDICTION)(x, sigma, [condition(1.0, y=0.5), condition(3.0, y=0.25)])
    assert len(network.calls) == 1
    torch.testing.assert_close(first, torch.full_like(x, -2.0 * 1.5))  # x - sigma * epsilon
    torch.testing.assert_close(second, torch.full_like(x, -2.0 * 3.25))


def test_network_sees_the_scaled_latent_and_the_timestep_of_sigma():
    network = Recorder()
    sigma = PREDICTION.table.sigmas[700]
    network_denoiser(network, PREDICTION)(torch.ones(2, 4, 8, 8), sigma, [condition(1.0), condition(2.0)])
    x, timestep, context, y = network.calls[0]
    torch.testing.assert_close(x, torch.full((4, 4, 8, 8), 1 / float(1 + sigma**2) ** 0.5))
    assert timestep.tolist() == [700.0] * 4 and timestep.dtype == torch.float32
    assert context[:, 0, 0].tolist() == [1.0, 1.0, 2.0, 2.0] and y is None


def test_network_computes_in_its_dtype_and_the_result_is_in_the_latents():
    network = Recorder()
    x = torch.ones(1, 4, 8, 8)
    (x0,) = network_denoiser(network, PREDICTION, torch.bfloat16)(x, torch.tensor(1.0), [condition(1.0, y=1.0)])
    scaled, timestep, context, y = network.calls[0]
    assert y is not None and {scaled.dtype, context.dtype, y.dtype} == {torch.bfloat16}
    assert timestep.dtype == x0.dtype == torch.float32


def test_context_is_the_same_object_at_every_step():
    network = Recorder()
    predict = network_denoiser(network, PREDICTION, torch.bfloat16)
    pair = [condition(1.0, y=1.0), condition(2.0, y=1.0)]
    for sigma in (5.0, 2.0, 1.0):
        predict(torch.ones(1, 4, 8, 8), torch.tensor(sigma), pair)
    assert len({id(call[2]) for call in network.calls}) == len({id(call[3]) for call in network.calls}) == 1


@pytest.mark.parametrize(
    ("lengths", "together"),
    [((77, 77), True), ((154, 77), True), ((231, 154), True), ((385, 154), False), ((385, 77), False)],
)
def test_sequences_are_repeated_to_a_common_length_if_that_is_cheap(lengths, together):
    conditions = [condition(float(i + 1), length) for i, length in enumerate(lengths)]
    assert fit_together(conditions) is together
    network = Recorder()
    x0s = network_denoiser(network, PREDICTION)(torch.zeros(1, 4, 8, 8), torch.tensor(1.0), conditions)
    assert len(network.calls) == (1 if together else 2)
    assert [round(x0.mean().item(), 4) for x0 in x0s] == [-1.0, -2.0]


def test_repeating_tokens_does_not_change_attention():
    generator = torch.Generator().manual_seed(0)
    query, tokens = (torch.randn(1, n, 8, generator=generator) for n in (5, 77))
    attend = torch.nn.functional.scaled_dot_product_attention
    repeated = tokens.repeat(1, 3, 1)
    torch.testing.assert_close(attend(query, repeated, repeated), attend(query, tokens, tokens))


def test_conditions_with_and_without_a_vector_run_apart():
    assert not fit_together([condition(1.0, y=1.0), condition(1.0)])
    assert not fit_together([condition(1.0), condition(1.0, width=16)])


def test_vector_changes_when_its_share_of_the_run_is_over():
    early, late = torch.zeros(1, 6), torch.ones(1, 6)
    timed = Condition(torch.zeros(1, 77, 8), early, late, switch=0.3)
    network = Recorder()
    predict = network_denoiser(network, PREDICTION)
    seen = {}
    for t in (999, 700, 699, 0):  # the emphasised sizes hold while t > 699.3
        predict(torch.zeros(1, 4, 8, 8), PREDICTION.table.sigmas[t], [timed])
        y = network.calls[-1][3]
        assert y is not None
        seen[t] = y[0, 0].item()
    assert seen == {999: 0.0, 700: 0.0, 699: 1.0, 0: 1.0}


def test_vector_of_an_edm_model_changes_by_the_logarithm_of_sigma():
    network, table = Recorder(), EDMTable()
    timed = Condition(torch.zeros(1, 77, 8), torch.zeros(1, 6), torch.ones(1, 6), switch=0.3)
    predict = network_denoiser(network, Prediction("edm", table))
    for percent, expected in ((0.01, 0.0), (0.29, 0.0), (0.31, 1.0), (0.99, 1.0)):
        predict(torch.zeros(1, 4, 8, 8), torch.tensor(table.percent_to_sigma(percent)), [timed])
        y = network.calls[-1][3]
        assert y is not None and y[0, 0].item() == expected


@pytest.mark.parametrize(("end", "first"), [(0.3, 1.0), (1.0, 0.0)])
def test_q05b_by_the_label_the_late_vector_of_an_edm_model_comes_at_once(end, first):
    """Early while t > 999 (1 - end), and t is at most 1.2: with the end at 1 as long as sigma is above 1, else never."""
    network = Recorder()
    timed = Condition(torch.zeros(1, 77, 8), torch.zeros(1, 6), torch.ones(1, 6), switch=end)
    predict = network_denoiser(network, Prediction("edm", EDMTable(), by_label=True))
    for sigma, expected in ((120.0, first), (1.1, first), (0.9, 1.0), (0.002, 1.0)):
        predict(torch.zeros(1, 4, 8, 8), torch.tensor(sigma), [timed])
        y = network.calls[-1][3]
        assert y is not None and y[0, 0].item() == expected


def test_switch_at_0_means_the_late_vector_from_the_start():
    early, late = torch.zeros(1, 6), torch.ones(1, 6)
    assert Condition(torch.zeros(1, 1, 1), early, late, switch=0.0).y_at(0.0) is late
    assert Condition(torch.zeros(1, 1, 1), early).y_at(1.0) is early
