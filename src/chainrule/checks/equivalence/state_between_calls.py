"""state-between-calls: in eval mode the same batch gives another loss when it is given again.

What it checks
    Two passes in a row in eval mode with the same random numbers, without anything put back between them.
Why it matters
    A cache that is not emptied, a counter, or a hidden state that is kept makes the result depend on what was evaluated
    before; batches then leak into one another.
How it decides
    The losses differ by more than rounding and the model's own noise: a warning, or a mere note where the model has recurrent
    layers, which may carry their state on purpose.
Broken
    self.total = self.total + x.mean(); y = x - self.total
Repaired
    y = x - x.mean()
Limits
    One batch, twice. State that only other batches change is not seen.
"""

from __future__ import annotations

import torch
from torch import nn

from chainrule.checks.copies import losses_in_eval
from chainrule.checks.equivalence.rows import sample
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import forward_limit

NAME = "state-between-calls"


def check(subject: Subject) -> Outcome:
    """Call the loss twice in eval mode."""
    try:
        first, second = _twice(subject)
        repeated = first if bool(first == second) else _twice(subject)[0]
    except Exception as error:  # whatever the user's code raises in eval mode
        return NotRun(f"the model refuses it: {type(error).__name__}")
    noise = abs(float(first) - float(repeated))
    limit = forward_limit(first.dtype, len(subject.graph.nodes), float(first), noise)
    return [_finding(float(first), float(second), subject)] if abs(float(second - first)) > limit.value else []


def _twice(subject: Subject) -> list[torch.Tensor]:
    return losses_in_eval(subject.setup, sample(subject), seed=subject.seed, calls=2)


def _finding(first: float, second: float, subject: Subject) -> Finding:
    recurrent = any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in subject.setup.model.modules())
    return Finding(
        check=NAME,
        severity="info" if recurrent else "warning",
        where=type(subject.setup.model).__name__,
        message="in eval mode the same batch gives another loss the second time",
        evidence={"first": first, "second": second},
        rows=(("first call", f"{first:.9g}", ""), ("second call", f"{second:.9g}", "same batch, same random numbers")),
        notes=("Look for an attribute or buffer that forward writes and reads again; reset it for each batch.",),
        reproduce=subject.reproduce(NAME),
    )
