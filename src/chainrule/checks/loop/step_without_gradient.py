"""step-without-gradient: the optimizer steps where no backward has given it anything to use.

What it checks
    Before each step of an optimizer there was a backward that left gradients in its parameters, and each backward's
    gradients are used by one step only.
Why it matters
    A step before backward wastes the first update and loses the last gradient of every run; an optimizer whose parameters
    never get a gradient holds other parameters than the model; a step called twice doubles the rate.
How it decides
    Steps that find no gradient at all, twice or more: an error if the loop has one optimizer and no step ever found any.
    A first step before any backward is a warning. Two steps of one optimizer with no backward in between and the very same
    gradient norm: a warning.
Broken
    optimizer.zero_grad()
    optimizer.step()
    loss(model(x), y).backward()
Repaired
    optimizer.zero_grad()
    loss(model(x), y).backward()
    optimizer.step()
Limits
    A loop that makes its gradients without backward (torch.autograd.grad, evolution strategies) is not judged.
"""

from __future__ import annotations

from chainrule.checks.loop.timeline import Window, number, optimizers, windows
from chainrule.checks.loop.zero_grad_before_step import clearing, finds_nothing
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "step-without-gradient"


def judge(observed: Observed) -> Outcome:
    """Whether each step found gradients of a backward of its own."""
    if not any(observed.of("backward")):
        return NotRun("the loop calls no backward")
    names = optimizers(observed)
    found = [
        _of([window for window in windows(observed) if window.step.who == name], observed, alone=len(names) == 1)
        for name in names
    ]
    return [finding for finding in found if finding is not None]


def _of(seen: list[Window], observed: Observed, *, alone: bool) -> Finding | None:
    empty = [window for window in seen if finds_nothing(window.step) and clearing(window) is None]
    if len(empty) >= 2 and len(empty) == len(seen):
        return _never(empty, certain=alone)
    first = seen[0] if seen else None
    if first is not None and first in empty and not first.of("backward") and _is_in_the_loop(first, observed):
        return _too_early(first)
    twice = [window for window in seen if _repeats(window)]
    return _twice(twice) if len(twice) >= 2 else None


def _is_in_the_loop(first: Window, observed: Observed) -> bool:
    """A single step before the loop begins only quietens a scheduler."""
    return observed.rehearsal or bool(first.of("batch"))


def _repeats(window: Window) -> bool:
    if window.before is None or window.of("backward", "zero_grad", "unscale"):
        return False
    used = number(window.step, "norm")
    return used > 0 and used == number(window.before, "norm") and not window.before.numbers.get("skipped")


def _never(empty: list[Window], *, certain: bool) -> Finding:
    step = empty[0].step
    early = not any(window.of("backward") for window in empty[:1])
    return Finding(
        check=NAME,
        severity="error" if certain else "warning",
        where=step.who,
        source=step.line,
        message=f"none of the {len(empty)} steps that were looked at found a gradient: nothing is trained",
        evidence={"steps": len(empty), "before_backward": early},
        notes=(
            "step() is called before backward(): call zero_grad, backward, step in this order."
            if early
            else "backward() fills other parameters than those that the optimizer holds: build it from the model that is "
            "trained, after the model was moved, wrapped or copied.",
        ),
    )


def _too_early(first: Window) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=first.step.who,
        source=first.step.line,
        message="the first step comes before any backward, and finds no gradient",
        evidence={"update": first.step.update},
        notes=("If step() stands before backward() in the loop, the last gradient of the run is never used.",),
    )


def _twice(repeated: list[Window]) -> Finding:
    step = repeated[0].step
    return Finding(
        check=NAME,
        severity="warning",
        where=step.who,
        source=step.line,
        message="the optimizer steps twice on the same gradients, with no backward in between",
        evidence={"times": len(repeated), "norm": step.numbers.get("norm")},
        notes=("Each update is applied twice, as if at twice the rate. Call step once per backward.",),
    )
