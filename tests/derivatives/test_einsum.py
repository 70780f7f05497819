import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import einsum
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([einsum.rules])
A, B, C = normal(3, 4), normal(2, 4, 5, seed=1), normal(3, 3, 3, seed=2)
OWN = [
    call(aten.einsum.default, equation, operands)
    for equation, operands in (
        ("ij,bjk->bik", (A, B)),
        ("ij,bjk", (A, B)),
        ("...j,bjk->...bk", (A, B)),
        ("...ij,...jk", (normal(5, 1, 3, 4), B)),
        ("iii", (C,)),
        ("iji->j", (C,)),
        ("iij,j->i", (C, C[0, 0])),
        ("aab,bcc->a", (C, C)),
        ("ij->", (A,)),
        ("ij,kl->k", (A, A)),
        ("ij,ij,ij->ij", (A, A + 1, normal(1, 4))),
    )
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
