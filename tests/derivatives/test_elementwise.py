import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import elementwise
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, renamed, samples_of

RULES, _ = merge([elementwise.rules])
OWN = [
    *renamed(torch.ops.aten.negative.default, torch.ops.aten.neg.default),
    *renamed(torch.ops.aten.special_expit.default, torch.ops.aten.sigmoid.default),
    call(torch.ops.aten.tan.default, torch.linspace(-1, 1, 7, dtype=torch.float64)),  # PyTorch's come near the poles
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
