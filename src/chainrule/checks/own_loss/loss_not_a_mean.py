"""loss-not-a-mean: the loss of your own is not the mean of one term for each example.

What it checks
    The loss of a batch against the losses of two unequal parts of it, and of predictions against targets of another shape.
Why it matters
    Accumulated gradients equal those of the full batch, and the validation loss does not depend on the batch size, only if
    the loss is the mean over examples. A sum makes the gradient grow with the batch; predictions (B, 1) beside targets (B)
    broadcast to (B, B), and the model learns the mean of all targets.
How it decides
    In float64: L(batch) = (n_A L(A) + n_B L(B)) / (n_A + n_B) within 1e-6 is a mean. If bringing both to one shape makes it so,
    it is the broadcast, an error; L(A) + L(B) is a sum, a warning; anything else (root of a mean, weights that are
    normalised in the batch, contrast between examples) a warning, for that may be meant.
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

import torch
from torch import Tensor

from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import Finding, NotRun, Outcome, Severity

NAME = "loss-not-a-mean"
CLOSE = 1e-6


def check(subject: LossSubject) -> Outcome:
    """Compare the loss of the batch with those of its parts."""
    prediction, target = subject.exact
    if len(prediction) < 3:
        return NotRun("the batch has fewer than 3 examples")
    if not torch.equal(subject.value(prediction, target), subject.value(prediction, target)):
        return NotRun("two runs on the same numbers differ")
    parts = _parts(subject, prediction, target)
    if not all(math.isfinite(part) for part in parts):
        return NotRun("the loss of a part of the batch is not finite")
    if _is_mean(*parts, len(prediction)):
        return []
    return [_finding(subject, parts, *_reason(subject, prediction, target, parts))]


def _parts(subject: LossSubject, prediction: Tensor, target: Tensor) -> tuple[float, float, float]:
    """The loss of all, of the first quarter, and of the rest."""
    cut = max(1, len(prediction) // 4)
    pieces = ((prediction, target), (prediction[:cut], target[:cut]), (prediction[cut:], target[cut:]))
    whole, first, rest = (float(subject.value(*piece)) for piece in pieces)
    return whole, first, rest


def _is_mean(whole: float, first: float, rest: float, examples: int) -> bool:
    cut = max(1, examples // 4)
    mean = (cut * first + (examples - cut) * rest) / examples
    return math.isclose(whole, mean, rel_tol=CLOSE, abs_tol=1e-12)


def _reason(
    subject: LossSubject, prediction: Tensor, target: Tensor, parts: tuple[float, float, float]
) -> tuple[Severity, str, str]:
    """(severity, message, what to do)."""
    whole, first, rest = parts
    if prediction.shape != target.shape and prediction.numel() == target.numel():
        one_shape = _parts(subject, prediction.reshape(target.shape), target)
        if _is_mean(*one_shape, len(prediction)):
            shapes = f"predictions {tuple(prediction.shape)} and targets {tuple(target.shape)}"
            return (
                "error",
                f"{shapes} broadcast: every prediction is compared with every target",
                ("Bring both to one shape first: prediction.squeeze(-1)."),
            )
    if math.isclose(whole, first + rest, rel_tol=CLOSE, abs_tol=1e-12):
        return (
            "warning",
            "this loss is a sum over the examples: its gradient grows with the batch size",
            (
                "Take the mean; else choose the learning rate for this batch size, and compare losses of equal batches only."
            ),
        )
    return (
        "warning",
        "this loss is not a mean over the examples: it depends on which of them share a batch",
        (
            "If that is meant (a contrast between examples, a root of a mean), accumulated gradients are not those of the full "
            "batch, and the validation loss depends on the batch size."
        ),
    )


def _finding(
    subject: LossSubject, parts: tuple[float, float, float], severity: Severity, message: str, advice: str
) -> Finding:
    whole, first, rest = parts
    examples = len(subject.prediction)
    cut = max(1, examples // 4)
    return Finding(
        check=NAME,
        severity=severity,
        where=subject.where,
        source=subject.source,
        message=message,
        evidence={"whole": whole, "parts": [first, rest], "examples": [cut, examples - cut]},
        rows=(
            (f"all {examples} examples", f"{whole:.6g}", ""),
            (f"the first {cut}", f"{first:.6g}", ""),
            (f"the other {examples - cut}", f"{rest:.6g}", ""),
        ),
        notes=(advice,),
        reproduce=subject.command,
    )
