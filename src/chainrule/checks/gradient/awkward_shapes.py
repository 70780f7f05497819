"""awkward-shapes: a hand-written backward is wrong for another shape of batch, or for another sign of the loss.

What it checks
    With custom autograd.Functions in the model: the user's own backward, as it runs in training, against the chain rule
    (as `gradient-mismatch` does), on a batch of one, of three, of an odd length, and on minus the loss.
Why it matters
    A kernel that keeps only the last block of a reduction, takes the batch's size for the number of rows, or leaves out
    what flows in from above, is exact for the shape that it was tried on.
How it decides
    As `gradient-mismatch`: adjoint residuals in units of the dtype's rounding, each against torch's own derivative. A place
    that is wrong on the batch itself is not repeated. What the user's own code refuses to run is left out. An error.
Broken
    def backward(ctx, g):                      # for y = -prod(x)
        return y / x
Repaired
    def backward(ctx, g):
        return g * y / x
Limits
    Shapes are cut along the first axis, if all tensors of the batch share it, and along the second of integer batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from chainrule.capture.eager import user_loss
from chainrule.capture.export import Loss
from chainrule.checks.functions import functions_of
from chainrule.checks.gradient.gradient_mismatch import check_in_own_dtype
from chainrule.checks.shapes import awkward
from chainrule.checks.subject import Subject
from chainrule.errors import ChainruleError
from chainrule.finding import Finding, NotRun, Outcome

NAME = "awkward-shapes"


class _Minus(nn.Module):
    """Minus a loss that is a module, with its parameters."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: Any, batch: Any) -> Tensor:
        """−loss(model, batch)."""
        value: Tensor = self.loss(model, batch)
        return -value


def check(subject: Subject) -> Outcome:
    """What is wrong in some shape and not on the batch itself, each place once."""
    applied, _ = functions_of(subject)
    if not applied:
        return NotRun("no custom autograd.Function is applied")
    known = {finding.where for finding in _findings(subject)}
    found: list[Finding] = []
    for what, variant in _variants(subject):
        for finding in _findings(variant):
            if finding.severity == "error" and finding.where not in known:
                known.add(finding.where)
                found.append(_named(finding, what, subject))
    return found


def _variants(subject: Subject) -> Iterator[tuple[str, Subject]]:
    minus = replace(subject.setup, loss=negated(subject.setup.loss))
    yield "on minus the loss", replace(subject, setup=minus, tape=None)
    if not subject.fixed_shapes:
        for what, batch in awkward(subject.batch):
            yield what, replace(subject, batch=batch, tape=None)


def negated(loss: Loss) -> Callable[[Any, Any], Tensor]:
    """Minus the loss; a module stays one, so that its parameters stay known."""
    return _Minus(loss) if isinstance(loss, nn.Module) else lambda model, batch: -loss(model, batch)


def _findings(subject: Subject) -> list[Finding]:
    """What stage 3 says of this variant; nothing if the user's code does not take it."""
    try:
        user_loss(subject.setup.model, subject.setup.loss, subject.batch)
        return check_in_own_dtype(subject)[1]
    except ChainruleError:
        return []
    except Exception:
        # The user's code may refuse a shape in any way it likes; that is no fault of the shape we asked for.
        return []


def _named(finding: Finding, what: str, subject: Subject) -> Finding:
    return replace(
        finding,
        check=NAME,
        message=f"{what}: {finding.message}",
        notes=(*finding.notes, "On the batch as it is, this place follows the chain rule."),
        reproduce=subject.reproduce(NAME),
    )
