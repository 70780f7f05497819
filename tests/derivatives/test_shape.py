import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import shape
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([shape.rules])
X, COUNTS = normal(2, 3, 4), torch.arange(3)
COPIES = (aten.contiguous, aten.alias, aten.lift_fresh, aten.lift_fresh_copy, aten.adjoint)
OWN = [
    *(call(op.default, X) for op in COPIES),
    call(aten.numpy_T.default, X[0]),
    call(aten.swapaxes.default, X, 0, -1),
    call(aten._unsafe_view.default, X, (6, -1)),
    call(aten._to_copy.default, X, memory_format=torch.contiguous_format),
    call(aten.to.dtype_layout, X, dtype=torch.float64, copy=True),
    call(aten.to.other, X, normal(1), copy=True),
    call(aten.type_as.default, X, normal(1)),
    call(aten.copy.default, X, normal(3, 1)),
    call(aten.movedim.int, X, 0, -1),
    call(aten.moveaxis.int, X, -1, 1),
    call(aten.moveaxis.intlist, X, (0, 1), (-1, 0)),
    call(aten.concat.default, (X, X[:, :1]), 1),
    call(aten.concatenate.default, (X, X[:1])),
    call(aten.cat.default, (normal(0), X, X[:1])),
    call(aten.split.sizes, X, (1, 2), -2),
    call(aten.unsafe_split_with_sizes.default, X, (3, 1), 2),
    call(aten.repeat_interleave.self_Tensor, X, COUNTS, 1),
    call(aten.repeat_interleave.self_Tensor, X, torch.tensor([2])),
    call(aten.narrow.default, X, -1, -3, 2),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))
