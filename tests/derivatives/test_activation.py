import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import activation
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, samples_of

aten = torch.ops.aten
RULES, _ = merge([activation.rules])
ENTRIES = {aten._prelu_kernel.default: ["nn.functional.prelu"], aten.celu.default: ["nn.functional.celu"]}

# On and around every kink of every activation, where the choice of the derivative is PyTorch's.
KINKS = torch.tensor([-6, -3, -1, -0.5, 0, 0.5, 1, 3, 6, -2.7, 0.3, 2.9], dtype=torch.float64)
OF_ONE_TENSOR = [
    op
    for op in RULES
    if op not in (aten.prelu.default, aten._prelu_kernel.default, aten.glu.default, aten.threshold.default)
]
OWN = [
    *(call(op, KINKS) for op in OF_ONE_TENSOR),
    call(aten.threshold.default, KINKS, 0.5, -2.0),
    call(aten.hardtanh.default, KINKS, -0.5, 3.0),
    call(aten.leaky_relu.default, KINKS, -0.2),
    call(aten.elu.default, KINKS, 0.7, 1.3, 2.0),
    call(aten.celu.default, KINKS, 0.5),
    call(aten.softplus.default, KINKS, 2.0, 6.0),
    call(aten.gelu.default, KINKS, approximate="tanh"),
    call(aten.prelu.default, KINKS.reshape(2, 3, 2), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN, ENTRIES.get(op, ())))
