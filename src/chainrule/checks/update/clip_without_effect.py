"""clip-without-effect: clipping is called and bounds nothing: it gets no gradients, or shrinks them by a wrong factor.

What it checks
    A clipping by norm leaves a norm of min(norm, max) behind, and it was given gradients at all while the step has some.
Why it matters
    An exhausted generator of parameters (used once for the optimizer), or those of another model, clip nothing. A squared
    norm in the factor max/norm² clips a gradient of norm 100 to max/100: training crawls wherever clipping acts.
How it decides
    Norm 0 in the clipping and more than max in the step after it, twice: an error. After clipping, max/√norm in place of max,
    to 0.1 %: the norm that was given is a squared one: an error. A bound of 100 and more that is 1,000 times the largest norm
    in all of at least three steps: info.
Broken
    parameters = model.parameters()                      # a generator, empty after the optimizer has read it
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
Repaired
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
Limits
    Clipping by torch.nn.utils is seen; a clipping written by hand is not. A bound that leaves out some parameters on purpose
    is no fault.
"""

from __future__ import annotations

from chainrule.checks.loop.timeline import Window, number, runs_up
from chainrule.checks.update.clip_order import bounds
from chainrule.finding import Finding, NotRun, Outcome, Severity
from chainrule.watch.observed import Event, Observed

NAME = "clip-without-effect"
EXACTLY = 1e-3
LOOSE, LARGE, STEPS = 1000.0, 100.0, 3


def judge(observed: Observed) -> Outcome:
    """Whether clipping bounds what it is to bound."""
    seen = [
        (window, event) for window in runs_up(observed) for event in window.of("clip") if event.numbers["how"] == "norm"
    ]
    seen = [(window, event) for window, event in seen if bounds(event) and event.numbers.get("norm") is not None]
    if not seen:
        return NotRun("no clipping by norm was looked at")
    blind = [event for window, event in seen if _sees_nothing(window, event)]
    if len(blind) >= 2:
        return [_blind(blind)]
    squared = [event for _, event in seen if _squared(event)]
    if squared:
        return [_square(squared[0])]
    return [_loose([event for _, event in seen])] if _is_loose([event for _, event in seen]) else []


def _sees_nothing(window: Window, event: Event) -> bool:
    return number(event, "norm") == 0 and number(window.step, "norm") > 1.01 * event.numbers["max"]


def _squared(event: Event) -> bool:
    """True if the norm after is what the factor max/norm² leaves, where `norm` is really the square."""
    square, largest, after = number(event, "norm"), event.numbers["max"], number(event, "after")
    acted = square > (1 + EXACTLY) * largest and after > 0
    return acted and abs(after * square**0.5 / largest - 1) < EXACTLY and abs(after / largest - 1) > EXACTLY


def _is_loose(events: list[Event]) -> bool:
    largest = max(number(event, "norm") for event in events)
    least = min(event.numbers["max"] for event in events)
    return len(events) >= STEPS and largest > 0 and least >= LARGE and least > LOOSE * largest


def _blind(events: list[Event]) -> Finding:
    return _finding(
        "error",
        events[0],
        "clipping is given no gradients, and the step uses more than the bound",
        "The generator of parameters is exhausted, or they are those of another model: pass model.parameters() anew each time.",
    )


def _square(event: Event) -> Finding:
    return _finding(
        "error",
        event,
        f"clipping divides by the squared norm: {number(event, 'after'):.3g} is left where the bound is {event.numbers['max']:g}",
        "Take the root of the sum of squares before max / norm.",
    )


def _loose(events: list[Event]) -> Finding:
    return _finding(
        "info",
        events[0],
        f"the bound {events[0].numbers['max']:g} is more than {LOOSE:,.0f} times any gradient norm seen: it never acts",
        "A useful bound is a little above the usual norm.",
    )


def _finding(severity: Severity, event: Event, message: str, note: str) -> Finding:
    return Finding(
        check=NAME,
        severity=severity,
        where="clip_grad_norm_",
        source=event.line,
        message=message,
        evidence={name: event.numbers.get(name) for name in ("max", "norm", "after")},
        notes=(note,),
    )
