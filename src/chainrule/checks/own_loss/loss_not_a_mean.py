"""loss-not-a-mean: the loss of your own is not the mean of one term for each example.

What it checks
    The loss of a batch against the losses of two unequal parts of it, and of predictions against targets of another shape.
Why it matters
    Accumulated gradients equal those of the full batch, and the validation loss does not depend on the batch size, only if
    the loss is the mean over examples. A sum makes the gradient grow with the batch; predictions (B, 1) beside targets (B)
    broadcast to (B, B), and the model learns the mean of all targets.
How it decides
    In float64: L(batch) = (n_A L(A) + n_B L(B)) / (n_A + n_B) within 1e-6 of the larger part is a mean. If bringing both to
    one shape makes it so, it is the broadcast, an error; L(A) + L(B) is a sum, a warning; anything else (root of a mean,
    weights that are normalised in the batch, contrast between examples) a warning, for that may be meant.
Broken
    def loss(prediction, target):
        return (prediction - target).square().sum()
Repaired
    def loss(prediction, target):
        return (prediction - target).square().mean()
Limits
    A loss that draws random numbers cannot be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import NotRun, Outcome, Severity

NAME = "loss-not-a-mean"
CLOSE = 1e-6  # of the larger part: a loss that computes in float32 inside rounds to 1e-7 of it
SUM: tuple[Severity, str, str] = (
    "warning",
    "this loss is a sum over the examples: its gradient grows with the batch size",
    "Take the mean; else choose the learning rate for this batch size, and compare losses of equal batches only.",
)
MIXED: tuple[Severity, str, str] = (
    "warning",
    "this loss is not a mean over the examples: it depends on which of them share a batch",
    "If that is meant (a contrast between examples, a root of a mean), accumulated gradients are not those of the full "
    "batch, and the validation loss depends on the batch size.",
)


@dataclass(frozen=True)
class Parts:
    """The loss of a batch, of its first quarter A, and of the rest B, with the examples that A and B have."""

    whole: float
    first: float
    rest: float
    cut: int
    others: int

    @property
    def is_mean(self) -> bool:
        """The loss of the batch is the mean over the examples."""
        return self._close((self.cut * self.first + self.others * self.rest) / (self.cut + self.others))

    @property
    def is_sum(self) -> bool:
        """The loss of the batch is the sum of its parts'."""
        return self._close(self.first + self.rest)

    def _close(self, expected: float) -> bool:
        return abs(self.whole - expected) <= CLOSE * max(abs(self.first), abs(self.rest))


def check(subject: LossSubject) -> Outcome:
    """Compare the loss of the batch with those of its parts."""
    prediction, target = subject.exact
    if len(prediction) < 3:
        return NotRun("the batch has fewer than 3 examples")
    if not subject.repeats:
        return NotRun("two runs on the same numbers differ")
    parts = _parts(subject, prediction, target)
    if not all(map(math.isfinite, (parts.whole, parts.first, parts.rest))):
        return NotRun("the loss of a part of the batch is not finite")
    if parts.is_mean:
        return []
    severity, message, advice = _reason(subject, prediction, target, parts)
    return [
        subject.finding(
            NAME,
            severity,
            message,
            evidence={
                "whole": parts.whole,
                "parts": [parts.first, parts.rest],
                "examples": [parts.cut, parts.others],
            },
            rows=(
                (f"all {len(prediction)} examples", f"{parts.whole:.6g}", ""),
                (f"the first {parts.cut}", f"{parts.first:.6g}", ""),
                (f"the other {parts.others}", f"{parts.rest:.6g}", ""),
            ),
            advice=advice,
        )
    ]


def _parts(subject: LossSubject, prediction: Tensor, target: Tensor) -> Parts:
    cut = max(1, len(prediction) // 4)
    pieces = ((prediction, target), (prediction[:cut], target[:cut]), (prediction[cut:], target[cut:]))
    whole, first, rest = (float(subject.value(*piece)) for piece in pieces)
    return Parts(whole, first, rest, cut, len(prediction) - cut)


def _reason(subject: LossSubject, prediction: Tensor, target: Tensor, parts: Parts) -> tuple[Severity, str, str]:
    """(severity, message, what to do)."""
    if (
        prediction.shape != target.shape
        and prediction.numel() == target.numel()
        and _parts(subject, prediction.reshape(target.shape), target).is_mean
    ):
        shapes = f"predictions {tuple(prediction.shape)} and targets {tuple(target.shape)}"
        message = f"{shapes} broadcast: every prediction is compared with every target"
        return "error", message, "Bring both to one shape first: prediction.squeeze(-1)."
    return SUM if parts.is_sum else MIXED
