"""Every rule of cross entropy and likelihood stands the checks that every rule must stand."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import cross_entropy
from chainrule.derivatives.rule import merge
from chainrule.graph import bind_arguments
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([cross_entropy.rules])
CROSS_ENTROPY = aten.cross_entropy_loss.default


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_samples() -> list[Sample]:
    x, image, w = normal(6, 5), normal(2, 5, 3, 2), normal(5, seed=2).abs()
    classes, places = torch.tensor([0, 4, 2, 0, 2, 1]), torch.arange(12).reshape(2, 3, 2) % 5
    no_places = torch.full_like(places, 3)
    samples = [
        call(CROSS_ENTROPY, logits, target, weight, reduction, ignore, smoothing)
        for (logits, target), weight, reduction, ignore, smoothing in itertools.product(
            [(x, classes), (image, places), (x[0], classes[1])], [None, w], [0, 1, 2], [-100, 2], [0.0, 0.3]
        )
    ]
    samples += [
        call(CROSS_ENTROPY, logits, normal(*logits.shape, seed=3).softmax(dim), weight, reduction, -100, smoothing)
        for (logits, dim), weight, reduction, smoothing in itertools.product(
            [(x, 1), (image, 1), (x[0], 0)], [None, w], [0, 1, 2], [0.0, 0.3]
        )
    ]
    samples += [call(CROSS_ENTROPY, x[:0], classes[:0], reduction=2), call(CROSS_ENTROPY, x[:, :1], classes * 0)]
    for reduction in (0, 1, 2):
        samples += [
            call(aten.nll_loss.default, x, classes, w, reduction),
            call(aten.nll_loss.default, x[0], classes[1], None, reduction),
            call(aten.nll_loss_nd.default, image, places, w, reduction, 3),
            call(aten.nll_loss_nd.default, image, no_places, w, reduction, 3),
            call(aten.nll_loss2d.default, image, places, None, reduction),
            call(aten.nll_loss_forward.default, x, classes, w, reduction, -100),
            call(aten.nll_loss2d_forward.default, image, places, w, reduction, 1),
        ]
    return samples


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_batch_of_ignored_examples_only_has_no_gradient_though_its_mean_loss_is_nan(smoothing: float) -> None:
    logits, target = normal(3, 4), torch.full((3,), -100)
    arguments = bind_arguments(CROSS_ENTROPY, (logits, target), {"label_smoothing": smoothing})
    loss = CROSS_ENTROPY(**arguments)
    assert loss.isnan()
    gradient = RULES[CROSS_ENTROPY].gradients(torch.ones_like(loss), loss, arguments)["self"]
    assert torch.equal(torch.zeros(3, 4, dtype=torch.float64), gradient)
