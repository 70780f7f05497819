"""loss-diverges: the loss grows from step to step.

What it checks
    The losses that one line of the loop calls backward on, in order.
Why it matters
    With too high a learning rate each step overshoots further than the last one. On inputs or targets of size 100 a rate of
    0.1 reaches inf within three steps.
How it decides
    Four losses in a row, each larger than the one before, the last above 10 times the first, or no longer finite; or the
    second to fourth all above 10 times the very first. Noise orders four losses so with a chance of 1 in 24, but does not
    make them grow tenfold. A warning; infinite losses are reported as an error by loss-not-finite.
Broken
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
Repaired
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
Limits
    Losses that may be negative (policies, likelihoods of densities) are not judged.
"""

from __future__ import annotations

import math
from itertools import pairwise

from chainrule.finding import Finding, Line, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "loss-diverges"
STEPS, GROWTH = 4, 10.0


def judge(observed: Observed) -> Outcome:
    """Look at the losses of every line that calls backward."""
    losses: dict[tuple[str, Line | None], list[float]] = {}
    for event in observed.of("backward"):
        if _usable(event):
            losses.setdefault((event.who, event.line), []).append(float(event.numbers["loss"]))
    enough = {place: values for place, values in losses.items() if len(values) >= STEPS}
    if not enough:
        return NotRun(f"fewer than {STEPS} losses were seen")
    found = ((who, line, _growing(values)) for (who, line), values in enough.items())
    return [_finding(who, line, window) for who, line, window in found if window]


def _usable(event: Event) -> bool:
    """False for a loss that a GradScaler has multiplied: its scale grows by design."""
    return event.numbers.get("loss") is not None and not event.numbers.get("scaled")


def _growing(values: list[float]) -> list[float]:
    """The first stretch of growing losses; [] if there is none."""
    for start in range(len(values) - STEPS + 1):
        window = values[start : start + STEPS]
        rising = all(b > a or not math.isfinite(b) for a, b in pairwise(window))
        far = [not value <= GROWTH * window[0] for value in window[1:]]
        if window[0] > 0 and ((rising and far[-1]) or (start == 0 and all(far))):
            return window
    return []


def _finding(who: str, line: Line | None, window: list[float]) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=who or "loss",
        source=line,
        message=f"the loss grows from {window[0]:.3g} to {window[-1]:.3g} within {STEPS} steps",
        evidence={"losses": [str(value) for value in window]},
        rows=(("losses", " -> ".join(f"{value:.3g}" for value in window), "one step after another"),),
        notes=("Lower the learning rate, scale inputs and targets to unit size, or clip the gradient's norm.",),
    )
