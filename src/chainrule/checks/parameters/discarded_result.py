"""discarded-result: a custom autograd.Function is applied, and what it returns never reaches the loss.

What it checks
    Each custom Function that is applied to values with a gradient has its output in the loss's own history.
Why it matters
    A Function that hands a gradient in by the back door (the scaler of an auxiliary loss) works only if its result is used
    in place of its input. Called for its effect, it does nothing: the router never hears of its balance loss.
How it decides
    The applications of one eager run are written down; the history of the loss is walked from its grad_fn. One that is not
    in it, though its inputs carry a gradient, is a warning.
Broken
    AuxiliaryLoss.apply(x, balance)
Repaired
    x = AuxiliaryLoss.apply(x, balance)
Limits
    A Function applied for a metric only is reported too; run it under no_grad.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.functions import Applied, applications
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Line, Outcome

NAME = "discarded-result"


def check(subject: Subject) -> Outcome:
    """One finding for each line that applies a Function to no effect."""
    unused = on_copies(subject.setup, subject.batch, _unused, seed=subject.seed)
    return [_finding(subject, one) for one in unused.values()]


def _unused(copies: Copies) -> dict[Line | None, Applied]:
    with applications() as applied:
        loss = copies.loss()
    history = _history(loss)
    return {one.line: one for one in applied if one.nodes and not any(node in history for node in one.nodes)}


def _history(loss: Tensor) -> set[Any]:
    """Every node of autograd's graph behind the loss."""
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return seen


def _finding(subject: Subject, applied: Applied) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=applied.name,
        source=applied.line,
        message=f"{applied.name} is applied and its result does not reach the loss: its backward never runs",
        evidence={"function": applied.name},
        notes=("Use the result in place of the input, or run it under no_grad if it is there for a metric only.",),
        reproduce=subject.reproduce(NAME),
    )
