"""no-update: the loop computes gradients, and no parameter ever moves.

What it checks
    A loop that calls backward several times and no optimizer's step changes the parameters in some other way.
Why it matters
    A loop with an update written by hand (p.data -= lr * p.grad), in which a condition that is never true, a `continue` or
    an early return skips the update: the loss is printed, batch after batch, and nothing is learned (gensim PR#386).
How it decides
    Ten backward calls or more, no step of any optimizer, and 64 entries of every parameter that the first loss reached are
    bitwise what they were at the first backward: a warning, for gradients can be all that a program is after.
Broken
    for code in codes:
        if not code:                                     # 0 is a code like any other
            continue
        update(weights, code)
Repaired
    for code in codes:
        if code is None:
            continue
        update(weights, code)
Limits
    Loops whose gradients do not come from backward are not seen. Judged at the end of the loop.
"""

from __future__ import annotations

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "no-update"
LEAST = 10


def judge(observed: Observed) -> Outcome:
    """Whether a loop without an optimizer trains anything."""
    if any(observed.of("step")):
        return NotRun("an optimizer makes the steps")
    backward = list(observed.of("backward"))
    if len(backward) < LEAST:
        return NotRun("fewer than ten backward calls were seen")
    last = backward[-1]
    if not last.numbers.get("stands"):
        return []
    return [
        Finding(
            check=NAME,
            severity="warning",
            where="the loop",
            source=backward[0].line,
            message=f"{len(backward)} backward calls, no optimizer's step, and no parameter has moved",
            evidence={"backward": len(backward)},
            notes=("Look at the condition under which the update is made; it may never be true.",),
        )
    ]
