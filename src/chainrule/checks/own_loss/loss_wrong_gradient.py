"""loss-wrong-gradient: autograd's gradient of the loss of your own is not the loss's slope.

What it checks
    dL/dprediction by autograd, entry by entry (64 of them at most), against differences of the loss itself.
Why it matters
    A custom autograd.Function may have a wrong backward, and a detached factor drops a term of the product rule. The loss
    is right, its gradient is not, and training goes somewhere else without a word.
How it decides
    In float64, order-8 differences at two step lengths, of which the one with the smaller error bar counts. An error where the
    two differ by more than three bars and by more than 1e-6 of the largest entry. Entries of which three bars are wider than
    that (a kink of the loss lies within the step) say little; if more than a quarter do, the check is unresolved.
Broken
    def loss(prediction, target):
        error = prediction - target
        return (error.detach().abs() * error.abs()).mean()
Repaired
    def loss(prediction, target):
        return (prediction - target).square().mean()
Limits
    A weight that is detached on purpose (as focal weights sometimes are) is found too: the gradient is then not that of the
    loss that is printed.
"""

from __future__ import annotations

import torch

from chainrule.checks.own_loss.slopes import UNSURE, Slopes
from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "loss-wrong-gradient"


def check(subject: LossSubject) -> Outcome:
    """Compare autograd's gradient with differences."""
    value, gradient = subject.value_and_gradient(*subject.exact)
    if gradient is None or not bool(gradient.any()):
        return NotRun("there is no gradient")
    if not bool(value.isfinite()) or not bool(gradient.isfinite().all()):
        return NotRun("loss or gradient is not finite")
    if not subject.repeats:
        return NotRun("two runs on the same numbers differ")
    found = subject.slopes
    if bool(found.wrong.any()):
        return [_mismatch(subject, found)]
    return [_unresolved(subject, found)] if float(found.unsure.double().mean()) > UNSURE else []


def _mismatch(subject: LossSubject, found: Slopes) -> Finding:
    worst = int(((found.autograd - found.numerical).abs() / found.limit).argmax())
    index = tuple(int(i) for i in torch.unravel_index(found.places[worst], subject.prediction.shape))
    ratio = float(found.autograd[worst] / found.numerical[worst]) if found.numerical[worst] else float("inf")
    wrong, entries = int(found.wrong.sum()), len(found.places)
    return subject.finding(
        NAME,
        "error",
        f"autograd's gradient of this loss is not its slope in {wrong} of {entries} entries",
        evidence={"wrong": wrong, "entries": entries, "ratio": ratio},
        rows=(
            ("autograd", f"{float(found.autograd[worst]):.6e}", f"dL/dprediction at {index}"),
            ("numerical (order 8)", f"{float(found.numerical[worst]):.6e}", f"± {float(found.bar[worst]):.0e}"),
        ),
        advice=f"Ratio {ratio:.4g} there. Look at the backward of a custom autograd.Function, or for .detach() on a factor "
        "that depends on the predictions.",
    )


def _unresolved(subject: LossSubject, found: Slopes) -> Finding:
    unsure, entries = int(found.unsure.sum()), len(found.places)
    return subject.finding(
        NAME,
        "warning",
        f"the slope of this loss cannot be measured in {unsure} of {entries} entries",
        evidence={"unsure": unsure, "entries": entries, "bar": float(found.bar.max())},
        advice="It jumps or computes in low precision there: differences at neighbouring points do not agree.",
        unresolved=True,
    )
