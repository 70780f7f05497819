"""loss-not-finite: the loop called backward on a loss that is inf or nan.

What it checks
    The loss of every backward that the loop makes.
Why it matters
    The gradient of nan is nan; after the next step so are all weights, and nothing raises.
How it decides
    Any inf or nan is an error. Under a GradScaler the scaled loss may overflow while the scale is searched for, and the step
    is skipped; there only the last loss seen counts, after at least five in a row.
Broken
    loss = torch.log(torch.zeros(1, requires_grad=True)).sum()
Repaired
    loss = torch.log(torch.ones(1, requires_grad=True)).sum()
Limits
    Says when, not why: `chainrule check` on that batch says where it begins.
"""

from __future__ import annotations

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "loss-not-finite"
SCALED = 5


def judge(observed: Observed) -> Outcome:
    """Look at the loss of every backward."""
    losses = [event for event in observed.of("backward") if event.numbers.get("finite") is not None]
    if not losses:
        return NotRun("no loss was seen")
    plain = [event for event in losses if not event.numbers.get("scaled")]
    scaled = [event for event in losses if event.numbers.get("scaled")][-SCALED:]
    stuck = len(scaled) == SCALED and not any(event.numbers["finite"] for event in scaled)
    bad = [event for event in plain if not event.numbers["finite"]] + (scaled if stuck else [])
    return [_finding(bad[0], len(bad), len(losses))] if bad else []


def _finding(event: Event, bad: int, total: int) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=event.who or "loss",
        source=event.line,
        message=f"the loss is {event.numbers.get('loss')} before update {event.update + 1}",
        evidence={"update": event.update, "bad": bad, "of": total},
        rows=(("losses that are inf or nan", f"{bad} of {total}", f"the first before update {event.update + 1}"),),
        notes=("Stop here: the weights after it are worth nothing. Lower the learning rate, or check that batch.",),
    )
