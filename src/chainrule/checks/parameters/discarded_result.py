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

from chainrule.checks.functions import Applied, functions_of
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Outcome

NAME = "discarded-result"


def check(subject: Subject) -> Outcome:
    """One finding for each line that applies a Function to no effect."""
    _, lost = functions_of(subject)
    return [_finding(subject, one) for one in {one.line: one for one in lost}.values()]


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
