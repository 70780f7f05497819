"""loss-rises: the optimizer's first step goes uphill.

What it checks
    The first step of each optimizer: the inner product of what it did to the parameters with the gradient that it used.
Why it matters
    The loss falls only along minus the gradient. A plus in a hand-written update, or maximize=True by mistake, makes the
    loss rise at every step; with a schedule and noise on top it is often read as "does not learn".
How it decides
    cos(gradient, step) over all parameters. Every usual rule has it below 0 at its first step (SGD -1, Adam about -0.8,
    Muon and Adafactor between). Above 0.5 is an error, unless the optimizer was asked to maximize. The margin leaves room
    for weight decay, which points anywhere.
Broken
    for p in parameters:
        p.data += 0.1 * p.grad
Repaired
    for p in parameters:
        p.data -= 0.1 * p.grad
Limits
    Steps after the first carry momentum of earlier batches and are not judged. A loss with a wrong sign is flipped-sign's.
"""

from __future__ import annotations

import math

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed, StepRecord

NAME = "loss-rises"
UPHILL = 0.5


def judge(observed: Observed) -> Outcome:
    """Look at the direction of each optimizer's first step."""
    first = [step for step in observed.steps if step.number == 1 and not _maximizes(step)]
    if not first:
        return NotRun("no optimizer's first step was looked at")
    cosines = ((step, step.once(_cosine)) for step in first)
    return [_finding(step, cosine) for step, cosine in cosines if cosine > UPHILL]


def _maximizes(step: StepRecord) -> bool:
    return any(group.get("maximize") for group in step.settings)


def _cosine(step: StepRecord) -> float:
    """cos(gradient, what the step did) over all parameters that have a gradient; 0 if nothing moved."""
    inner = gradient = moved = 0.0
    for path, g in step.gradients.items():
        if g is not None and not g.is_sparse:
            change = step.after[path].double() - step.before[path].double()
            inner += float((g.double() * change).sum())
            gradient += float(g.double().square().sum())
            moved += float(change.square().sum())
    return inner / math.sqrt(gradient * moved) if gradient > 0 and moved > 0 else 0.0


def _finding(step: StepRecord, cosine: float) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=step.optimizer,
        source=step.line,
        message="the first step goes along the gradient, not against it: the loss rises",
        evidence={"cosine": cosine, "loss": step.loss},
        rows=(("cos(gradient, step)", f"{cosine:+.3f}", "-1 for plain gradient descent"),),
        notes=("Look for a wrong sign in the update, or for maximize=True.",),
    )
