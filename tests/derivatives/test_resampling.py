"""Every rule of resampling stands the checks that every rule must stand."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import resampling
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([resampling.rules])
NEAREST = {
    1: (aten.upsample_nearest1d.vec, aten._upsample_nearest_exact1d.vec),
    2: (aten.upsample_nearest2d.vec, aten._upsample_nearest_exact2d.vec),
    3: (aten.upsample_nearest3d.vec, aten._upsample_nearest_exact3d.vec),
}
SMOOTH = {
    1: (aten.upsample_linear1d.vec,),
    2: (aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec),
    3: (aten.upsample_trilinear3d.vec,),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    inputs = {1: normal(2, 3, 7), 2: normal(2, 3, 5, 6), 3: normal(1, 2, 3, 4, 5)}
    sizes = {1: [[11], [4], [1]], 2: [[9, 13], [3, 2], [1, 6]], 3: [[5, 9, 4]]}
    factors = {1: [[1.7], [0.6]], 2: [[1.5, 2.3], [0.7, 2.0]], 3: [[1.4, 0.6, 2.0]]}
    samples = []
    for dims, x in inputs.items():
        targets = [(size, None) for size in sizes[dims]] + [(None, factor) for factor in factors[dims]]
        samples += [call(op, x, *target) for op, target in itertools.product(NEAREST[dims], targets)]
        samples += [
            call(op, x, target[0], corners, target[1])
            for op, target, corners in itertools.product(SMOOTH[dims], targets, [True, False])
            if not (corners and target[1])
        ]
    return [
        *samples,
        call(aten.upsample_nearest2d.default, inputs[2], [9, 13]),
        call(aten.upsample_nearest2d.default, inputs[2], [7, 13], 1.5, 2.3),
        call(aten.upsample_bilinear2d.default, inputs[2], [9, 13], True),
        call(aten.upsample_bilinear2d.default, inputs[2], [7, 13], False, 1.5, 2.3),
        call(aten.col2im.default, normal(2, 12, 20), [5, 6], [2, 2], [1, 1], [0, 0], [1, 1]),
        call(aten.col2im.default, normal(12, 15), [5, 6], [2, 2], [2, 1], [1, 0], [1, 2]),
    ]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))
