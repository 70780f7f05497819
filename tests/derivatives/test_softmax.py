import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import softmax
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([softmax.rules])
X, MASKED = (
    normal(3, 4),
    torch.tensor([[0.5, -torch.inf, 1], [-torch.inf, -torch.inf, -torch.inf]], dtype=torch.float64),
)
OWN = [
    *(call(aten._safe_softmax.default, self, -1) for self in (X, MASKED)),
    call(aten.special_softmax.default, X, 0),
    call(aten.special_log_softmax.default, X, 0),
    call(aten.softmax.int, MASKED[:1], -1),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
