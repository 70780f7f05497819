import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import padding
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([padding.rules])
A, B, C = normal(2, 3, 5), normal(2, 2, 3, 4), normal(1, 2, 3, 4, 2)
OWN = [
    *(call(op, A, (3, -1)) for op in (aten.replication_pad1d.default, aten._pad_circular.default)),
    call(aten.reflection_pad1d.default, A, (3, 4)),
    call(aten.reflection_pad2d.default, B, (2, 1, 0, 2)),
    call(aten.reflection_pad3d.default, C, (1, 0, 2, 3, 0, 1)),
    call(aten.replication_pad2d.default, B, (5, -1, 0, 2)),
    call(aten.replication_pad3d.default, C, (1, 0, 2, 3, -1, 1)),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
