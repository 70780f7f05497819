"""Every rule of pooling stands the checks that every rule must stand, and equal entries are seen."""

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import pooling
from chainrule.derivatives.rule import call_by_name, merge
from chainrule.graph import bind_arguments
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([pooling.rules])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    x1, x2, x3 = normal(2, 3, 11), normal(2, 3, 9, 8), normal(2, 2, 5, 6, 4)
    return [
        call(aten.max_pool1d_with_indices.default, x1, [3], [2], [1], [2], True),
        call(aten.max_pool2d_with_indices.default, x2, [3, 2], [2, 1], [1, 1], [1, 2], True),
        call(aten.max_pool2d_with_indices.default, x2[0], [3]),
        call(aten.max_pool3d_with_indices.default, x3, [2], [1], [1]),
        call(aten.adaptive_max_pool1d.default, x1, [4]),
        call(aten.adaptive_max_pool3d.default, x3, [2, 4, 3]),
        call(aten._adaptive_avg_pool2d.default, x2, [4, 5]),
        call(aten._adaptive_avg_pool3d.default, x3, [4, 5, 3]),
        call(aten.adaptive_avg_pool1d.default, x1, [20]),
        call(aten.adaptive_avg_pool2d.default, x2[0], [1, 1]),
    ]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    samples = samples_of(op, own_samples())
    check(RULES[op], samples[:: -(-len(samples) // 120)])  # op_db draws a thousand for max pooling


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_windows_with_equal_largest_entries_are_kinks(ceil_mode: bool) -> None:
    x = torch.tensor([[[1.0, 1.0, 0.0, 2.0, 1.0, 2.0, 3.0, 3.0]]])
    op = aten.max_pool1d.default
    arguments = bind_arguments(op, (x, [3], [2], [1], [1], ceil_mode), {})
    expected = [True, False, True, True] + ceil_mode * [False]
    assert expected == call_by_name(RULES[op].kink, arguments)[0, 0].tolist()  # type: ignore[arg-type]
