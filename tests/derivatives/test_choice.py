import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import choice
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, renamed, samples_of

aten = torch.ops.aten
RULES, _ = merge([choice.rules])
X, Y, MASK = normal(3, 4), normal(4, seed=1), normal(3, 1, seed=2) > 0
KINKS = torch.tensor([[-2, -0.5, 0, 0.5], [2, 0.7, -0.7, -3], [1, -1, 0.1, 0]], dtype=torch.float64)
OWN = [
    *renamed(aten.absolute.default, aten.abs.default),
    *renamed(aten.clip.Tensor, aten.clamp.Tensor),
    *(call(aten.clip.default, normal(5), low, 0.5) for low in (None, -0.5)),
    call(aten.fill.Tensor, normal(3, 2), normal()),
    call(aten.where.ScalarOther, MASK, X, -1.5),
    call(aten.where.ScalarSelf, MASK, -1.5, X),
    call(aten.where.self, MASK, X, torch.tensor(float("-inf"))),
    call(aten.masked_fill.Scalar, X, MASK, float("-inf")),
    call(aten.abs.default, KINKS),
    *(call(aten.clamp.default, KINKS, *bounds) for bounds in ((-0.5, 0.7), (None, 0.5), (-0.5, None), (0.7, -0.7))),
    *(call(aten.clamp_min.default, self, -0.5) for self in (KINKS, X)),
    *(call(aten.clamp_max.default, self, 0.5) for self in (KINKS, X)),
    *(
        call(op, KINKS, KINKS[:, :1])
        for op in (aten.maximum.default, aten.minimum.default, aten.fmax.default, aten.fmin.default)
    ),
    *(call(op, X, 0.7) for op in (aten.fmod.Scalar, aten.remainder.Scalar)),
    *(call(op, X, Y) for op in (aten.fmod.Tensor, aten.remainder.Tensor, aten.copysign.Tensor)),
    *(call(aten.copysign.Scalar, KINKS, sign) for sign in (2.0, -0.0)),
    call(
        aten.nan_to_num.default,
        torch.tensor([float("nan"), float("inf"), 1.5, -float("inf")], dtype=torch.float64),
        0.5,
    ),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
