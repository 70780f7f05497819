"""zero-grad-before-step: zero_grad stands between backward and step, so that the step finds no gradient.

What it checks
    After the last backward before a step nobody clears the gradients that the step is to use.
Why it matters
    The optimizer skips every parameter without a gradient: nothing is trained, or only by weight decay, and nothing raises.
How it decides
    zero_grad comes after the last backward, and the step then finds no gradient, or only zeros.
Broken
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
Repaired
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
Limits
    Gradients cleared by hand (p.grad = None) are seen only as a step without gradients, by step-without-gradient.
"""

from __future__ import annotations

from chainrule.checks.loop.timeline import Window, optimizers, windows
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "zero-grad-before-step"


def judge(observed: Observed) -> Outcome:
    """Whether gradients are cleared before the step that is to use them."""
    seen = list(windows(observed))
    if not seen:
        return NotRun("no step was seen")
    wrong = [window for window in seen if clearing(window)]
    return [_finding([w for w in wrong if w.step.who == name]) for name in optimizers(observed) if _any(name, wrong)]


def clearing(window: Window) -> Event | None:
    """The zero_grad that took away what the last backward had left for this step."""
    if not window.of("backward") or not finds_nothing(window.step):
        return None
    last = max(position for position, event in enumerate(window.events) if event.kind == "backward")
    after = [event for event in window.events[last:] if event.kind == "zero_grad"]
    return next((event for event in after if event.numbers.get("cleared") != 0), None)


def finds_nothing(step: Event) -> bool:
    """True if no parameter of the optimizer held a gradient, or only zeros."""
    return bool(step.numbers.get("empty")) or step.numbers.get("norm") == 0


def _any(name: str, wrong: list[Window]) -> bool:
    return any(window.step.who == name for window in wrong)


def _finding(wrong: list[Window]) -> Finding:
    event = clearing(wrong[0])
    assert event is not None
    return Finding(
        check=NAME,
        severity="error",
        where=wrong[0].step.who,
        source=event.line or wrong[0].step.line,
        message="gradients are cleared after backward and before the step, which then finds none",
        evidence={"update": wrong[0].step.update, "times": len(wrong), "cleared": event.numbers.get("cleared")},
        notes=("Call zero_grad before backward, or after step.",),
    )
