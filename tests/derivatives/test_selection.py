import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import selection
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([selection.rules])
TIES = torch.tensor([[2.0, 1, 2, 0], [0, 0, 0, 0], [3, -3, 3, 1]], dtype=torch.float64)
ALONG = (aten.max.dim, aten.min.dim, aten.median.dim, aten.nanmedian.dim, aten.mode.default, aten.sort.default)
OWN = [
    *(call(op.default, TIES) for op in (aten.max, aten.min, aten.median, aten.nanmedian)),
    *(call(op.default, TIES, [1]) for op in (aten.amax, aten.amin)),
    *(call(op, TIES, 1) for op in (*ALONG, aten.cummax.default, aten.cummin.default)),
    call(aten.topk.default, TIES, 2),
    call(aten.kthvalue.default, TIES, 2),
    call(aten.sort.stable, TIES, stable=True),
    call(aten.aminmax.default, TIES, dim=0),
    *(call(op.default, normal(4, 5)) for op in (aten.max, aten.min, aten.median, aten.nanmedian)),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
