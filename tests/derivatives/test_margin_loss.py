"""Every rule of a loss with a margin stands the checks that every rule must stand."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import margin_loss
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([margin_loss.rules])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    x, other, classes = normal(6, 4), normal(6, 4, seed=1), torch.tensor([0, 3, 1, 1, 2, 0])
    labels = torch.tensor([[0, -1, 2, 1], [3, 1, -1, -1], [-1, 0, 1, 2], [2, 1, 0, 3], [1, 2, 3, -1], [0, -1, -1, -1]])
    signs = torch.tensor([1, -1, 1, -1, -1, 1])
    samples = [
        call(aten.multi_margin_loss.default, x, classes, p, margin, weight, reduction)
        for p, margin, weight, reduction in itertools.product([1, 2], [1, 0.3], [None, normal(4).abs()], [0, 1, 2])
    ]
    for reduction in (0, 1, 2):
        samples += [
            call(aten.multilabel_margin_loss.default, x, labels, reduction),
            call(aten.multilabel_margin_loss.default, x[0], labels[0], reduction),
            call(aten.cosine_embedding_loss.default, x, other, signs, 0.1, reduction),
            call(aten.cosine_embedding_loss.default, x[0], other[0], signs[1], -0.9, reduction),
        ]
    return samples


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))
