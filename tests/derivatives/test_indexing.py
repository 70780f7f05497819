import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import indexing
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([indexing.rules])
X, ROWS = normal(3, 4, 5), torch.tensor([2, 0, 2])
COLUMNS, MASK, AT = torch.tensor([[1], [3], [0]]), normal(3, 4, seed=2) > 0, torch.tensor([[[0, 1, 2, 0, 1]]])
ENTRIES = {aten.index.Tensor: ["__getitem__"]}
OWN = [
    *(
        call(op, X, indices)
        for op in (aten.index.Tensor, aten._unsafe_index.Tensor)
        for indices in ([ROWS], [None, ROWS], [ROWS, None, COLUMNS], [ROWS, COLUMNS])
    ),
    *(call(aten.index.Tensor, X, indices) for indices in ([MASK], [ROWS > 0, None, torch.tensor([0, 4])])),
    *(
        call(op, X, [ROWS[:2], None, COLUMNS], normal(3, 1, 4, seed=1), add)
        for op in (aten.index_put.default, aten._unsafe_index_put.default)
        for add in (False, True)
    ),
    call(aten.scatter.value, X, 0, AT, 1.5),
    call(aten.scatter.src, X, 0, AT, normal(1, 1, 5)),
    call(aten.scatter_add.default, X, 0, AT, normal(1, 1, 5)),
    call(aten.masked_scatter.default, X, MASK[..., None], normal(70)),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN, ENTRIES.get(op, ())))
