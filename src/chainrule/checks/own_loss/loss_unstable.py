"""loss-unstable: the loss of your own, or its gradient, becomes inf or nan at an edge that training reaches.

What it checks
    Loss and gradient, in the dtype of the predictions: untrained predictions, one example, targets of one class or value
    only; for logits 0, ±100 and ±10,000, right and wrong; for probabilities exactly 0 and 1; for numbers no error at all and
    errors of 1,000 standard deviations.
Why it matters
    One nan in the gradient makes every weight nan at the next step. log(0), 0 · log(0), exp of a large number, the root of
    a zero, a deviation of one example or a division by the number of positives do it, often after hours.
How it decides
    By looking. An error where training gets on its way; a warning at ±10,000 and at 1,000 standard deviations, which only a run
    that goes wrong reaches, and where a loss such as eˣ may be inf rightly; nan is an error everywhere.
Broken
    def loss(prediction, target):
        return (prediction - target).square().mean().sqrt()
Repaired
    def loss(prediction, target):
        return ((prediction - target).square().mean() + 1e-12).sqrt()
Limits
    Only these edges. In float16 the range is smaller: run the examination in the dtype of the training.
"""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.checks.own_loss.edges import Edge, edges_of
from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import Finding, Outcome

NAME = "loss-unstable"


@dataclass(frozen=True)
class Seen:
    """What became of loss and gradient at an edge, in words; `grave` if it must not be trained with."""

    edge: str
    loss: str
    gradient: str
    grave: bool


def check(subject: LossSubject) -> Outcome:
    """Compute loss and gradient at every edge."""
    seen = [bad for edge in edges_of(subject) if (bad := _look(subject, edge)) is not None]
    return [_finding(subject, seen)] if seen else []


def _look(subject: LossSubject, edge: Edge) -> Seen | None:
    """What is wrong at the edge; None if nothing is."""
    try:
        value, gradient = subject.value_and_gradient(edge.prediction, edge.target)
    except Exception as error:
        words = str(error).partition("\n")[0]
        return Seen(edge.name, f"raises {type(error).__name__}", words, edge.reached)
    if gradient is None:  # said by loss-without-gradient, if it is so everywhere
        gradient = edge.prediction.new_zeros(1)
    if bool(value.isfinite()) and bool(gradient.isfinite().all()):
        return None
    has_nan = bool(value.isnan() | gradient.isnan().any())
    bad = int((~gradient.isfinite()).sum())
    kind = "nan" if bool(gradient.isnan().any()) else "inf"
    arrived = f"gradient {kind} in {bad} of {gradient.numel()} entries" if bad else "gradient finite"
    return Seen(edge.name, f"{float(value):g}", arrived, edge.reached or has_nan)


def _finding(subject: LossSubject, seen: list[Seen]) -> Finding:
    grave = any(one.grave for one in seen)
    where = f"{len(seen)} {'edge' if len(seen) == 1 else 'edges'}"
    return subject.finding(
        NAME,
        "error" if grave else "warning",
        f"this loss or its gradient is not finite at {where}" + ("" if grave else " that only a failing run reaches"),
        evidence={"edges": [one.edge for one in seen]},
        rows=tuple((one.edge, one.loss, one.gradient) for one in seen),
        advice="Take logits and a fused form (log_softmax, logsigmoid, logsumexp) instead of a logarithm of probabilities; "
        "add a small number below a root; divide by a count that is at least 1.",
    )
