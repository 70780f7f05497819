"""lost-micro-batches: what is left of an epoch when gradients are accumulated is thrown away, or leaks into the next epoch.

What it checks
    At the end of an epoch of the training data no gradients wait for a step that comes later or never.
Why it matters
    7 batches in groups of 4 leave 3: in every epoch they are lost, or make a group with the first of the next epoch, divided by
    another number than they are. At the end of the run they are lost in any case.
How it decides
    Two micro-batches or more per update, and at the begin of the next epoch, or when the loop has ended, backwards since the
    last step: lost if they are cleared first or nothing follows, leaking if the next step still uses them. A warning: a
    rest that is dropped knowingly is like drop_last.
Broken
    for i, (x, y) in enumerate(loader):                  # 7 batches
        (loss(model(x), y) / 4).backward()
        if (i + 1) % 4 == 0:
            optimizer.step(); optimizer.zero_grad()
Repaired
        if (i + 1) % 4 == 0 or i + 1 == len(loader):
            optimizer.step(); optimizer.zero_grad()
Limits
    Loops over a torch DataLoader. Whether the loss was divided by the right number is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chainrule.checks.loop.timeline import training_loader, windows
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "lost-micro-batches"


def judge(observed: Observed) -> Outcome:
    """Whether micro-batches wait at the end of an epoch."""
    loader = training_loader(observed)
    if loader is None:
        return NotRun("the loop takes no batches from a DataLoader")
    group = _per_update(observed, loader)
    if group < 2:
        return NotRun("gradients are not accumulated over several batches")
    left = list(_left_over(observed, loader))
    return [_finding(loader, group, *left[0])] if left else []


def _per_update(observed: Observed, loader: str) -> int:
    """Batches of the training data per step, as a rule."""
    inside = [w for w in windows(observed) if not any(e.who == loader for e in w.of("epoch")[1:])]
    counts = Counter(sum(event.who == loader for event in window.of("batch")) for window in inside)
    return counts.most_common(1)[0][0] if counts else 0


def _left_over(observed: Observed, loader: str) -> Iterator[tuple[str, int, Event | None]]:
    """(what becomes of them, how many, the last of these backwards) for each end of an epoch at which some are left."""
    waiting: list[Event] = []
    begun = 0
    for position, event in enumerate(observed.events):
        if event.kind == "backward":
            waiting.append(event)
        elif event.kind in ("step", "zero_grad") and event.numbers.get("cleared") != 0:
            waiting = []
        elif event.kind == "epoch" and event.who == loader:
            begun += 1
            if waiting and begun > 1:
                yield _fate(observed.events[position:]), len(waiting), waiting[-1]
    if waiting and observed.finished and not observed.rehearsal:
        yield "lost", len(waiting), waiting[-1]


def _fate(later: list[Event]) -> str:
    after = next((event for event in later if event.kind in ("zero_grad", "backward", "step")), None)
    return "lost" if after is None or after.kind == "zero_grad" else "leaking"


def _finding(loader: str, group: int, fate: str, count: int, event: Event | None) -> Finding:
    words = {
        "lost": f"the gradients of the last {count} batches of the epoch are thrown away: {group} make an update",
        "leaking": f"the gradients of the last {count} batches of an epoch leak into the first update of the next",
    }
    return Finding(
        check=NAME,
        severity="warning",
        where=loader,
        source=event.line if event else None,
        message=words[fate],
        evidence={"fate": fate, "left": count, "per_update": group},
        notes=(
            "Step after the last batch of the epoch too, and divide by the number of batches that are really in the group.",
        ),
    )
