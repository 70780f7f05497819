import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import distance
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([distance.rules])
A, B, C = (normal(4, 3, seed=seed) for seed in (1, 2, 3))
TRIPLET = aten.triplet_margin_loss.default
OWN = [
    call(aten.pairwise_distance.default, A, B[:1]),
    call(aten.pairwise_distance.default, A[0], B[0], 3, keepdim=True),
    *(call(aten.dist.default, A, B[0], p) for p in (1, 2, 3.5)),
    call(aten.cosine_similarity.default, torch.cat([A, torch.zeros_like(A[:1])]), B[:1]),
    *(call(TRIPLET, A, B, C, swap=swap, reduction=how) for swap in (False, True) for how in (0, 1, 2)),
    call(TRIPLET, A, A, A + 2),
    *(
        call(aten._weight_norm.default, normal(3, 4, 2), normal(*shape), dim)
        for shape, dim in (((3, 1, 1), 0), ((1, 1, 2), 2))
    ),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
