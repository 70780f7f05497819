"""Every rule of recurrent networks stands the checks that every rule must stand; what a rule cannot see is refused."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import recurrent, recurrent_cell
from chainrule.derivatives.rule import merge
from chainrule.errors import MissingRuleError
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([recurrent.rules, recurrent_cell.rules])
NETWORKS = {aten.lstm.input: 4, aten.gru.input: 3, aten.rnn_tanh.input: 1, aten.rnn_relu.input: 1}
CELLS = {
    aten.lstm_cell.default: 4,
    aten.gru_cell.default: 3,
    aten.rnn_tanh_cell.default: 1,
    aten.rnn_relu_cell.default: 1,
}
BATCH, INPUT, HIDDEN = 2, 3, 4


def normals(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) * 0.5 for shape in shapes]


def network(op: OpOverload, *, layers: int, both_ways: bool, biases: bool, batch_first: bool, steps: int = 5) -> Sample:
    ways, a = 1 + both_ways, NETWORKS[op] * HIDDEN
    shapes: list[tuple[int, ...]] = []
    for layer, _ in itertools.product(range(layers), range(ways)):
        shapes += [(a, INPUT if layer == 0 else HIDDEN * ways), (a, HIDDEN)] + biases * [(a,), (a,)]
    x, h, c = normals(
        (BATCH, steps, INPUT) if batch_first else (steps, BATCH, INPUT),
        (layers * ways, BATCH, HIDDEN),
        (layers * ways, BATCH, HIDDEN),
    )
    hx = [h, c] if op is aten.lstm.input else h
    return call(op, x, hx, normals(*shapes), biases, layers, 0.0, True, both_ways, batch_first)


def own_samples() -> list[Sample]:
    samples = [
        network(op, layers=layers, both_ways=both_ways, biases=biases, batch_first=batch_first)
        for op in NETWORKS
        for layers, both_ways, biases, batch_first in [
            (1, False, True, False),
            (1, True, False, True),
            (2, False, False, True),
            (2, True, True, False),
        ]
    ]
    samples += [network(op, layers=1, both_ways=False, biases=True, batch_first=True, steps=1) for op in NETWORKS]
    for op, parts in CELLS.items():
        x, h, c, w_ih, w_hh, b_ih, b_hh = normals(
            (BATCH, INPUT),
            (BATCH, HIDDEN),
            (BATCH, HIDDEN),
            (parts * HIDDEN, INPUT),
            (parts * HIDDEN, HIDDEN),
            (parts * HIDDEN,),
            (parts * HIDDEN,),
        )
        hx = [h, c] if op is aten.lstm_cell.default else h
        samples += [call(op, x, hx, w_ih, w_hh, b_ih, b_hh), call(op, x, hx, w_ih, w_hh)]
    return samples


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))


def gradients_of(sample: Sample, **changed: Any) -> Any:
    arguments = {**sample.arguments, **changed}
    y = sample.op(**arguments)
    return RULES[sample.op].gradients(y, y, arguments)


def test_dropout_between_layers_is_refused_in_training_and_nothing_in_evaluation() -> None:
    sample = network(aten.gru.input, layers=2, both_ways=False, biases=True, batch_first=True)
    with pytest.raises(MissingRuleError, match=r"dropout = 0\.3 between its 2 layers draws the masks inside"):
        gradients_of(sample, dropout=0.3)
    assert gradients_of(sample, dropout=0.3, train=False)["input"].shape == (BATCH, 5, INPUT)


def test_a_projected_lstm_is_refused() -> None:
    lstm = torch.nn.LSTM(INPUT, HIDDEN, proj_size=2)
    arguments = call(
        aten.lstm.input,
        torch.zeros(5, BATCH, INPUT),
        [torch.zeros(1, BATCH, 2), torch.zeros(1, BATCH, HIDDEN)],
        [weight.detach() for weight in lstm._flat_weights],
        True,
        1,
        0.0,
        True,
        False,
        False,
    )
    with pytest.raises(MissingRuleError, match="proj_size has no derivative rule"):
        gradients_of(arguments)
