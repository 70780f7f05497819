import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import reduction
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([reduction.rules])
CONSTANT = torch.tensor([[1.0, 1, 1], [2, -1, 0]], dtype=torch.float64)
OWN = [
    call(aten.std.dim, CONSTANT, [1]),
    call(aten.std_mean.correction, CONSTANT, [1], correction=0),
    call(aten.var.correction, normal(4, 3, 2), [0, -1], correction=1.5, keepdim=True),
    call(aten.sum.dim_IntList, CONSTANT, []),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
