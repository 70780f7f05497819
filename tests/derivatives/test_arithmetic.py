import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import arithmetic
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, renamed, samples_of

aten = torch.ops.aten
RULES, _ = merge([arithmetic.rules])
X, Y = normal(3, 4), normal(4, seed=1)
OWN = [
    *renamed(aten.subtract.Tensor, aten.sub.Tensor),
    *renamed(aten.multiply.Tensor, aten.mul.Tensor),
    *renamed(aten.divide.Tensor, aten.div.Tensor),
    *renamed(aten.true_divide.Tensor, aten.div.Tensor),
    *renamed(aten.arctan2.default, aten.atan2.default),
    *(call(op, X, 1.7, -0.5) for op in (aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar)),
    *(
        call(op, X, -1.7)
        for op in (aten.mul.Scalar, aten.div.Scalar, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor)
    ),
    *(call(aten.div.Scalar_mode, X, -1.7, rounding_mode=mode) for mode in (None, "floor", "trunc")),
    *(call(aten.div.Tensor_mode, X, Y, rounding_mode=mode) for mode in (None, "floor", "trunc")),
    call(aten.mul.Tensor, X, torch.arange(4)),
    call(aten.div.Tensor, X, torch.arange(1, 5)),
    call(aten.pow.Tensor_Tensor, X.abs() + 0.1, torch.arange(4)),
    call(aten.pow.Tensor_Tensor, torch.arange(1, 5), X),
    call(aten.xlogy.Tensor, X, torch.arange(1, 5)),
    call(aten.rsub.Tensor, X, Y, alpha=0.3),
    call(aten.pow.Scalar, 1.7, X),
    call(aten.pow.Tensor_Scalar, X, 3),
    call(aten.pow.Tensor_Scalar, X, 0),
    call(aten.pow.Tensor_Scalar, X.abs() + 0.1, -1.5),
    call(aten.xlogy.Scalar_Other, X, 0.7),
    call(aten.xlogy.Scalar_Self, -0.6, X.abs() + 0.1),
    call(aten.lerp.Scalar, X, Y, 0.3),
    call(aten.hypot.default, X, Y),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
