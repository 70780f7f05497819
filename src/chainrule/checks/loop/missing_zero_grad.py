"""missing-zero-grad: gradients of earlier steps are still there when the next backward adds to them.

What it checks
    Between two steps of an optimizer the gradients that its last step used are cleared before they are added to.
Why it matters
    backward() adds. Without zero_grad the step at time t follows the sum of all gradients so far: a momentum that never
    forgets. It trains at a small rate, worse, and diverges at a larger one.
How it decides
    The gradients held when the first backward after a step begins have at least 0.99 of the norm that this step used, and
    nobody called zero_grad for them until the next step. The norm is not zero by chance: this is certain, after one step.
Broken
    for x, y in loader:
        loss(model(x), y).backward()
        optimizer.step()
Repaired
    for x, y in loader:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
Limits
    Gradients are looked at in the steps 1, 2, 3, 4, 8, 16 ...: a zero_grad left out at other times is not seen.
"""

from __future__ import annotations

from chainrule.checks.loop.timeline import Window, number, optimizers, windows
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "missing-zero-grad"
KEPT = 0.99  # of the norm; the rest is for gradients that something else scaled in between


def judge(observed: Observed) -> Outcome:
    """Whether gradients that a step has used are still there when the next backward begins."""
    followed = [window for window in windows(observed) if window.before is not None]
    if not followed:
        return NotRun("fewer than two steps were seen")
    dirty = [window for window in followed if _kept(window)]
    return [_finding([w for w in dirty if w.step.who == name]) for name in optimizers(observed) if _of(name, dirty)]


def _of(name: str, dirty: list[Window]) -> bool:
    return any(window.step.who == name for window in dirty)


def _kept(window: Window) -> bool:
    backwards = window.of("backward")
    if window.before is None or not backwards or any(_clears(event, window) for event in window.of("zero_grad")):
        return False
    used = number(window.before, "norm")
    return used > 0 and number(backwards[0], "held") >= KEPT * used and all(_holds(event) for event in backwards)


def _clears(event: Event, window: Window) -> bool:
    """A zero_grad by the optimizer itself, or by a model, whose parameters may be the optimizer's."""
    other = event.who != window.step.who and any(e.who == event.who for e in window.of("step"))
    return not other and event.numbers.get("cleared") != 0


def _holds(event: Event) -> bool:
    held = event.numbers.get("held")
    return held is None or held > 0


def _finding(dirty: list[Window]) -> Finding:
    window = dirty[0]
    backward = window.of("backward")[0]
    assert window.before is not None
    used, held = number(window.before, "norm"), number(backward, "held")
    return Finding(
        check=NAME,
        severity="error",
        where=window.step.who,
        source=backward.line or window.step.line,
        message="gradients are not cleared between steps: each backward adds to those of all steps before",
        evidence={"update": window.step.update, "used": used, "held": held, "times": len(dirty)},
        rows=(
            (f"gradient norm at step {window.before.update + 1}", f"{used:.4g}", "what the optimizer used"),
            ("held before the next backward", f"{held:.4g}", "should be nothing"),
        ),
        notes=(f"Call zero_grad of {window.step.who} once per update, before backward or after step.",),
    )
