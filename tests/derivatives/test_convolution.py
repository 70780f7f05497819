"""Every rule of convolution stands the checks that every rule must stand."""

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import convolution
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([convolution.rules])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    x1, x2, x3 = normal(2, 4, 11), normal(2, 4, 9, 8), normal(2, 2, 5, 6, 4)
    w1, w2, w3 = normal(6, 2, 3), normal(6, 2, 3, 2), normal(4, 2, 2, 3, 2)
    b, t2 = normal(6), normal(4, 3, 3, 2)
    return [
        call(aten.conv1d.default, x1, w1, b, [2], [1], [2], 2),
        call(aten.conv1d.default, x1[0], w1, None, [3], [0], [1], 2),
        call(aten.conv1d.padding, x1, normal(6, 4, 4), b, [1], "same", [1]),
        call(aten.conv1d.padding, x1, w1, b, [2], "valid", [2], 2),
        call(aten.conv2d.default, x2, w2, b, [2, 3], [1, 2], [1, 2], 2),
        call(aten.conv2d.default, x2, normal(4, 1, 3, 3), None, [1, 1], [1, 1], [1, 1], 4),
        call(aten.conv2d.default, x2[:0], w2, b, [1, 1], [0, 0], [1, 1], 2),
        call(aten.conv2d.padding, x2, w2, b, [1, 1], "same", [3, 1], 2),
        call(aten.conv3d.default, x3, w3, None, [1, 2, 1], [1, 1, 0], [2, 1, 1]),
        call(aten.conv3d.padding, x3, w3, None, [1, 1, 1], "same", [1, 1, 2]),
        call(aten.conv_transpose1d.default, x1, normal(4, 3, 3), b, [3], [1], [2], 2),
        call(aten.conv_transpose1d.default, x1[0], normal(4, 3, 3), None, [1], [0], [1], 1, [2]),
        call(aten.conv_transpose2d.input, x2, t2, b, [2, 2], [1, 0], [1, 1], 2, [1, 2]),
        call(aten.conv_transpose3d.input, x3, normal(2, 3, 2, 2, 3), None, [1, 2, 1], [0, 1, 1]),
        call(aten.convolution.default, x2, w2, b, [1, 2], [1, 1], [1, 1], False, [0, 0], 2),
        call(aten.convolution.default, x2, t2, b, [1, 2], [1, 1], [1, 1], True, [0, 1], 2),
    ]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))
