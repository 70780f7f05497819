"""clip-before-unscale: gradients are clipped while they are still multiplied by the GradScaler's factor.

What it checks
    Between a backward of a scaled loss and the clipping of its gradients the scaler has unscaled them.
Why it matters
    With a factor of 65,536 a bound of 1.0 is a bound of 1.5e-5: nearly every update becomes tiny, of one length whatever the
    gradient, and changes whenever the factor changes.
How it decides
    The order backward (scaled), clip, step with no unscale_ before the clip. It is certain, whatever the numbers, unless the
    factor is 1.
Broken
    scaler.scale(loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
Repaired
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
Limits
    Scalers other than torch.amp.GradScaler are not known.
"""

from __future__ import annotations

from chainrule.checks.loop.timeline import Window, runs_up
from chainrule.checks.update.clip_order import bounds
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "clip-before-unscale"


def judge(observed: Observed) -> Outcome:
    """Whether clipped gradients were unscaled first."""
    if not any(observed.of("scale")):
        return NotRun("the loop uses no GradScaler")
    wrong = [(window, event) for window in runs_up(observed) if (event := _still_scaled(window)) is not None]
    return [_finding(*wrong[0], len(wrong))] if wrong else []


def _still_scaled(window: Window) -> Event | None:
    scaled = False
    for event in window.events:
        if event.kind == "scale" and event.numbers.get("scale") == 1.0:
            return None
        if event.kind == "backward" and event.numbers.get("scaled"):
            scaled = True
        elif event.kind == "unscale":
            scaled = False
        elif scaled and bounds(event):
            return event
    return None


def _finding(window: Window, event: Event, times: int) -> Finding:
    scales = [e.numbers.get("scale") for e in window.of("scale") if e.numbers.get("scale")]
    factor = f"{scales[0]:,.0f}" if scales else "unknown"
    return Finding(
        check=NAME,
        severity="error",
        where=window.step.who,
        source=event.line,
        message=f"gradients are clipped at {event.numbers['max']:g} before the GradScaler's factor ({factor}) is taken out",
        evidence={"times": times, "max": event.numbers["max"], "scale": scales[0] if scales else None},
        rows=(
            ("norm when clipped", f"{event.numbers.get('norm') or 0:.4g}", "still scaled"),
            ("the bound", f"{event.numbers['max']:g}", f"acts as {event.numbers['max'] / (scales[0] or 1):.1e}")
            if scales
            else ("the bound", f"{event.numbers['max']:g}", ""),
        ),
        notes=("Call scaler.unscale_(optimizer) before clipping; scaler.step() then does not do it again.",),
    )
