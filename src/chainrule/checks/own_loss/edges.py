"""Predictions and targets at the edges of what training reaches: sure and right, sure and wrong, no error, one example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.own_loss.subject import LossSubject

NEAR, FAR = 100.0, 1e4  # logits: the first is reached by models that are sure, the second by ones that diverge
FAR_ERROR = 1e3  # standard deviations of the target


@dataclass(frozen=True)
class Edge:
    """One place to look at.

    name      in words
    reached   True if training reaches it; False if only a run that goes wrong does
    """

    name: str
    prediction: Tensor
    target: Tensor
    reached: bool = True


def edges_of(subject: LossSubject) -> Iterator[Edge]:
    """The edges for the kind of target, in the dtype of the predictions."""
    prediction, target = subject.prediction.detach(), subject.target
    yield Edge("as an untrained model predicts", prediction, target)
    yield Edge("one example", prediction[:1], target[:1])
    if subject.kind == "numbers":
        yield from _of_numbers(prediction, target)
    else:
        yield from _of_one_class_only(subject)
        yield from _of_probabilities(subject) if subject.of_probabilities else _of_logits(subject)


def _of_numbers(prediction: Tensor, target: Tensor) -> Iterator[Edge]:
    same = target.reshape(prediction.shape) if target.numel() == prediction.numel() else target.expand_as(prediction)
    same = same.to(prediction.dtype)
    scale = float(same.std()) if same.numel() > 1 and float(same.std()) else 1.0
    yield Edge("prediction equal to target", same, target)
    yield Edge("all predictions equal", torch.zeros_like(prediction), target)
    yield Edge("all targets equal", prediction, torch.zeros_like(target))
    for sign, word in ((1, "too high"), (-1, "too low")):
        yield Edge(
            f"predictions {FAR_ERROR:g} standard deviations {word}", same + sign * FAR_ERROR * scale, target, False
        )


def _of_one_class_only(subject: LossSubject) -> Iterator[Edge]:
    for label in (0, 1):
        one = torch.full_like(subject.target, label)
        yield Edge(f"all targets of class {label}", subject.prediction.detach(), one)


def _of_logits(subject: LossSubject) -> Iterator[Edge]:
    toward = _toward_target(subject)
    for size, reached in ((NEAR, True), (FAR, False)):
        yield Edge(f"sure and right, logits ±{size:g}", size * toward, subject.target, reached)
        yield Edge(f"sure and wrong, logits ±{size:g}", -size * toward, subject.target, reached)
    yield Edge("all logits 0", torch.zeros_like(toward), subject.target)


def _of_probabilities(subject: LossSubject) -> Iterator[Edge]:
    right = (_toward_target(subject) + 1) / 2
    yield Edge("sure and right, probabilities 0 and 1", right, subject.target)
    wrong = 1 - right if subject.kind == "binary" else right.roll(1, dims=-1)
    yield Edge("sure and wrong, probabilities 0 and 1", wrong, subject.target)


def _toward_target(subject: LossSubject) -> Tensor:
    """+1 where the target is, −1 elsewhere, of the shape of the predictions."""
    prediction, target = subject.prediction, subject.target
    if subject.kind == "binary":
        return (2 * target - 1).reshape(prediction.shape).to(prediction.dtype)
    toward = -torch.ones_like(prediction)
    return toward.scatter(-1, target.long().clamp_min(0)[..., None], 1.0)
