"""batch-order: the loss depends on the order of the examples in the batch.

What it checks
    The loss of the batch and of the batch with its rows in reverse order.
Why it matters
    The order of examples is chance. If it matters, rows are mixed up: a position added along the batch axis, inputs and
    labels paired wrongly, a reshape across rows.
How it decides
    In float64, dropout off, where inputs and labels share their first axis. A difference above 1e-6 of the loss is an error
    if Setup.batch_independent claims independence, else a warning: the first axis may not be the batch.
Broken
    x = x + positions[: x.shape[0], None]
Repaired
    x = x + positions[: x.shape[1]]
Limits
    A dependence that is symmetric in the examples (batch statistics) does not show here; the batch leak check sees it.
"""

from __future__ import annotations

from typing import Any

import torch

from chainrule.capture.batches import tensors_of, with_tensors
from chainrule.checks.copies import Pass
from chainrule.checks.equivalence.rows import RECORDED, exact_pass, rows_of, sample, taken
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome

NAME = "batch-order"
EXACT = 1e-6  # of the loss: casts to float32 inside a model leave 1e-7


def check(subject: Subject) -> Outcome:
    """Compare the batch with itself in reverse."""
    if subject.fixed_shapes:
        return RECORDED
    batch = sample(subject)
    rows, tensors = rows_of(batch), tensors_of(batch).values()
    if rows is None or rows < 2 or len(tensors) < 2 or not any(tensor.dim() > 1 for tensor in tensors):
        return NotRun("inputs and labels do not share a first axis")
    if subject.setup.batch_independent is False:
        return NotRun("examples depend on each other by claim")
    plain = exact_pass(subject, batch)
    other = exact_pass(subject, taken(batch, torch.arange(rows).flip(0)))
    if isinstance(plain, NotRun):
        return plain
    if isinstance(other, NotRun):
        return other
    if _agree(plain, other):
        return []
    again = exact_pass(subject, batch, seed=subject.seed + 1)
    if isinstance(again, NotRun) or not _agree(plain, again):
        return NotRun("forward draws random numbers in eval mode")
    if _columns_are_examples(subject, batch, plain):
        return NotRun("the first axis is not that of the examples")
    return [_finding(float(plain.loss), float(other.loss), subject)]


def _columns_are_examples(subject: Subject, batch: Any, plain: Pass) -> bool:
    """True if the order along the second axis, where all tensors share it, is of no matter: time comes first there."""
    widths = {tensor.shape[1] if tensor.dim() > 1 else 0 for tensor in tensors_of(batch).values()}
    if len(widths) != 1 or widths.pop() < 2:
        return False
    turned = exact_pass(subject, with_tensors(batch, lambda tensor: tensor.flip(1)))
    return isinstance(turned, Pass) and _agree(plain, turned)


def _agree(one: Pass, other: Pass) -> bool:
    return abs(float(one.loss) - float(other.loss)) <= EXACT * abs(float(one.loss))


def _finding(plain: float, other: float, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error" if subject.setup.batch_independent else "warning",
        where="loss",
        source=line_of(subject.graph.nodes[-1].source),
        message="the loss changes when the examples of the batch come in another order",
        evidence={"loss": plain, "reversed": other},
        rows=(("as given", f"{plain:.9g}", ""), ("reversed", f"{other:.9g}", "the same examples")),
        notes=(
            "Look for positions, states or reshapes along the batch axis, and for inputs and labels in different order.",
        ),
        reproduce=subject.reproduce(NAME),
    )
