"""duplicated-batch: the loss of a batch given twice is neither the same nor the double.

What it checks
    The loss and gradient of the batch with each row twice, against the batch itself.
Why it matters
    A mean stays, a sum doubles. A loss that halves is divided by the batch size twice (reduction="mean", then / batch_size):
    with larger batches it learns slower and slower. A gradient that scales otherwise than its loss has a backward that
    divides by something else than forward does.
How it decides
    In float64, dropout off. A ratio of 1/2 within 1e-6 is a warning. A ratio of 1 or 2 while the gradient's is another by
    more than a thousandth is an error. Other ratios belong to losses that compare examples with each other, and pass.
Broken
    loss = F.mse_loss(prediction, target) / len(prediction)
Repaired
    loss = F.mse_loss(prediction, target)
Limits
    A constant divisor (a batch size written as a number) is not seen.
"""

from __future__ import annotations

import torch

from chainrule.checks.copies import Pass
from chainrule.checks.equivalence.rows import RECORDED, difference, exact_pass, rows_of, sample, taken
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome

NAME = "duplicated-batch"
EXACT, OTHER = 1e-6, 1e-3  # a wrong divisor is a factor; casts to float32 inside a model leave 1e-7


def check(subject: Subject) -> Outcome:
    """Compare the batch with the batch given twice."""
    if subject.fixed_shapes:
        return RECORDED
    batch = sample(subject, 2)
    rows = rows_of(batch)
    if rows is None:
        return NotRun("the batch has no common axis of rows")
    once = exact_pass(subject, batch)
    twice = exact_pass(subject, taken(batch, torch.arange(rows).repeat(2)))
    if isinstance(once, NotRun):
        return once
    if isinstance(twice, NotRun):
        return twice
    if float(once.loss) == 0:
        return NotRun("the loss is zero")
    ratio = float(twice.loss) / float(once.loss)
    if abs(ratio - 0.5) < EXACT:
        return [_halved(ratio, rows, subject)]
    nearest = next((whole for whole in (1.0, 2.0) if abs(ratio - whole) < 1e-9), None)
    apart = 0.0 if nearest is None else difference(twice, once, nearest)
    return [_other_gradient(nearest, apart, once, subject)] if nearest is not None and apart > OTHER else []


def _halved(ratio: float, rows: int, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where="loss",
        source=line_of(subject.graph.nodes[-1].source),
        message="with every row twice the loss halves: it is divided by the batch size twice",
        evidence={"ratio": ratio, "rows": rows},
        rows=(("loss of the doubled batch", f"{ratio:.6f} of the loss", "1 for a mean, 2 for a sum"),),
        notes=("A mean over the batch needs no further division; the learning rate now depends on the batch size.",),
        reproduce=subject.reproduce(NAME),
    )


def _other_gradient(ratio: float, apart: float, once: Pass, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where="backward",
        source=line_of(subject.graph.nodes[-1].source),
        message=f"with every row twice the loss is {ratio:g} times as large and the gradient is not: {apart:.1e} apart",
        evidence={"ratio": ratio, "difference": apart, "loss": float(once.loss)},
        notes=("A backward divides by the batch size where forward does not, or the other way round.",),
        reproduce=subject.reproduce(NAME),
    )
