"""clip-order: gradients are clipped where the step that is to use them no longer, or not yet, sees it.

What it checks
    The last clipping before a step comes after the last backward.
Why it matters
    Clipped after step() and then cleared, or clipped before backward() adds the rest: the update is as if there were no
    clipping, and the first large gradient ends the run.
How it decides
    Since the last step of any optimizer there was a clipping, and after it a backward, and then the step without another
    clipping: an error, in the second step already. Clipping at infinity, done to read the norm, is not meant.
Broken
    loss.backward()
    optimizer.step()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
Repaired
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
Limits
    Clipping by torch.nn.utils is seen; a clipping written by hand is not.
"""

from __future__ import annotations

import math

from chainrule.checks.loop.timeline import Window, runs_up
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "clip-order"
ONLY_READ = 1e6  # a bound as large as this is given to read the norm


def judge(observed: Observed) -> Outcome:
    """Whether what is clipped is what the step uses."""
    if not any(map(bounds, observed.of("clip"))):
        return NotRun("the loop clips nothing by torch.nn.utils")
    wrong = [(window, event) for window in runs_up(observed) if (event := _in_vain(window)) is not None]
    return [_finding(*wrong[0], len(wrong))] if wrong else []


def bounds(event: Event) -> bool:
    """True for a clipping that is meant to bound something."""
    return event.kind == "clip" and math.isfinite(event.numbers["max"]) and event.numbers["max"] < ONLY_READ


def _in_vain(window: Window) -> Event | None:
    """The clipping whose effect the step does not see."""
    backwards = [position for position, event in enumerate(window.events) if event.kind == "backward"]
    clips = [position for position, event in enumerate(window.events) if bounds(event)]
    return window.events[clips[-1]] if clips and backwards and clips[-1] < backwards[-1] else None


def _finding(window: Window, event: Event, times: int) -> Finding:
    after_step = not any(e.kind in ("backward", "zero_grad") for e in window.events[: window.events.index(event)])
    return Finding(
        check=NAME,
        severity="error",
        where=window.step.who,
        source=event.line,
        message="gradients are clipped after the step that uses them"
        if after_step
        else "gradients are clipped before the last backward adds to them",
        evidence={"update": window.step.update, "times": times, "max": event.numbers["max"]},
        notes=("Clip between the last backward() and step(); with a GradScaler after unscale_().",),
    )
