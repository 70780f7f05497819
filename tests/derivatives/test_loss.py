"""Every rule of a loss of independent terms stands the checks that every rule must stand."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import loss
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([loss.rules])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    x, t, w = normal(3, 4), normal(3, 4, seed=1), normal(4, seed=2).abs()
    probability, signs = torch.sigmoid(x), torch.sign(t)
    samples = []
    for reduction in (0, 1, 2):
        samples += [
            call(aten.mse_loss.default, x, t, reduction),
            call(aten.l1_loss.default, x, t, reduction),
            call(aten.l1_loss.default, x, x * (t > 0), reduction),
            call(aten.huber_loss.default, x, t, reduction, 0.5),
            call(aten.smooth_l1_loss.default, x, t, reduction, 0.7),
            call(aten.smooth_l1_loss.default, x, t, reduction, 0.0),
            call(aten.binary_cross_entropy.default, probability, torch.sigmoid(t), w, reduction),
            call(aten.binary_cross_entropy_with_logits.default, x, torch.sigmoid(t), w, 2 * w, reduction),
            call(aten.binary_cross_entropy_with_logits.default, x, torch.sigmoid(t), None, None, reduction),
            call(aten.kl_div.default, torch.log_softmax(x, 1), torch.softmax(t, 1), reduction),
            call(aten.kl_div.default, torch.log_softmax(x, 1), torch.log_softmax(t, 1), reduction, log_target=True),
            call(aten.soft_margin_loss.default, x, signs, reduction),
            call(aten.hinge_embedding_loss.default, x, signs, 0.3, reduction),
            call(aten.margin_ranking_loss.default, x, t, signs, 0.2, reduction),
        ]
    samples += [
        call(aten.poisson_nll_loss.default, probability, t.abs() * 3, log_input, full, 1e-8, reduction)
        for log_input, full, reduction in itertools.product((True, False), (True, False), (0, 1, 2))
    ]
    return samples


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))
