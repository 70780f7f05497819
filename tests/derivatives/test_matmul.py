import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import matmul
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([matmul.rules])
A, B, V = normal(3, 4), normal(2, 4, 5, seed=1), normal(4, seed=2)
OWN = [
    call(aten.ger.default, V, A[:, 0]),
    call(aten.matmul.default, B.mT, V),
    call(aten.matmul.default, V, B),
    call(aten.matmul.default, normal(2, 1, 3, 4), normal(5, 4, 2)),
    call(aten.linear.default, B.mT, A, normal(3)),
    call(aten.linear.default, V, A),
    call(aten.linear.default, B.mT, V),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
