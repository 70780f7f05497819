import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import norm
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([norm.rules])
X = normal(3, 4)
WITH_ZEROS = torch.tensor([[0.0, 1, -2, 2], [0, 0, 0, 0], [3, -3, 1, 0]], dtype=torch.float64)
ORDERS = (0, 0.5, 1, 1.5, 2, 3, float("inf"), -float("inf"))
OWN = [
    *(call(aten.linalg_vector_norm.default, WITH_ZEROS, p, [1]) for p in ORDERS),
    *(call(aten.norm.Scalar, X, p) for p in ORDERS),
    *(call(aten.norm.ScalarOpt_dim, WITH_ZEROS, p, [1], True) for p in (None, 1, 2, 3, float("inf"))),
    call(aten.norm.ScalarOpt_dim, X, 3, [1]),
    *(call(aten.norm.ScalarOpt_dim_dtype, X, p, [0], False, dtype=torch.float64) for p in (None, 1, 2.5)),
    *(call(aten.norm.ScalarOpt_dtype, X, p, dtype=torch.float64) for p in (None, 1, 2.5)),
    call(aten.prod.dim_int, WITH_ZEROS, 1),
    call(aten.prod.default, WITH_ZEROS[:, 1:3].clone()),
    call(aten.cumprod.default, WITH_ZEROS, 1),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
