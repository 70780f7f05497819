import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import embedding
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import (
    Check,
    agrees_with_central_differences,
    every_case,
    is_the_adjoint_of_its_tangent,
)
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
RULES, _ = merge([embedding.rules])
W, INDEX = normal(6, 3), torch.tensor([[1, 4, 0], [4, 4, 5]])
BAGS, STARTS, EACH = INDEX.flatten(), torch.tensor([0, 0, 2]), normal(6, seed=1)


def bag(mode, *, by_frequency=False, each=None, padding=None, starts=STARTS, last=False):
    return call(aten.embedding_bag.padding_idx, W, BAGS, starts, by_frequency, mode, False, each, last, padding)


OWN = [
    call(aten.embedding.default, W, INDEX, 4),
    call(aten.embedding.default, W, INDEX, -1, True),
    call(aten.embedding.default, W, INDEX, 4, True),
    *(bag(mode, padding=4) for mode in (0, 1, 2)),
    bag(0, each=EACH, padding=-2, starts=torch.tensor([0, 1, 6]), last=True),
]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, OWN))


@pytest.mark.parametrize("mode", [0, 1])
def test_a_bag_divides_by_frequency_as_the_plain_look_up_does(mode: int) -> None:
    # Not compared with PyTorch's embedding_bag, which divides by the count of another row (seen in 2.13, CPU).
    sample, op = bag(mode, by_frequency=True), aten.embedding_bag.padding_idx
    weight, lengths = W.clone().requires_grad_(), torch.tensor([0.0, 2.0, 4.0], dtype=W.dtype)
    bag_of = torch.tensor([1, 1, 2, 2, 2, 2])
    rows = torch.nn.functional.embedding(BAGS, weight, scale_grad_by_freq=True)
    pooled = torch.zeros(3, 3, dtype=W.dtype).index_add(0, bag_of, rows)
    y, g = op(**sample.arguments), normal(3, 3, seed=5)
    (pooled / lengths.clamp(min=1)[:, None] if mode else pooled).backward(g)
    torch.testing.assert_close(RULES[op].gradients((g, *y[1:]), y, sample.arguments)["weight"], weight.grad)
    is_the_adjoint_of_its_tangent(RULES[op], [sample])
    agrees_with_central_differences(RULES[op], [sample])
