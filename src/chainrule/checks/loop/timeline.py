"""The events of a loop cut into pieces: what lies between two steps of one optimizer, and the epochs of the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from chainrule.watch.observed import Event, Kind, Observed


@dataclass(frozen=True, eq=False)
class Window:
    """What happened between two steps of one optimizer.

    before  the step that it begins with; None before the first
    events  in between, those of other optimizers among them
    step    the step that it ends with
    """

    before: Event | None
    events: tuple[Event, ...]
    step: Event

    def of(self, *kinds: Kind) -> list[Event]:
        """The events of some kinds."""
        return [event for event in self.events if event.kind in kinds]

    @property
    def whole(self) -> bool:
        """False if events in between were forgotten: then nothing can be said of it."""
        steps = sum(event.kind == "step" for event in self.events)
        start = -1 if self.before is None else self.before.update
        return self.step.update - start == steps + 1


def windows(observed: Observed) -> Iterator[Window]:
    """One for each step, in order; those with forgotten events are left out."""
    last: dict[str, int] = {}
    for position, event in enumerate(observed.events):
        if event.kind == "step":
            start = last.get(event.who, -1)
            before = observed.events[start] if start >= 0 else None
            window = Window(before, tuple(observed.events[start + 1 : position]), event)
            last[event.who] = position
            if window.whole:
                yield window


def runs_up(observed: Observed) -> Iterator[Window]:
    """One for each step, reaching back to the last step of whatever optimizer."""
    start, before = 0, None
    for position, event in enumerate(observed.events):
        if event.kind == "step":
            window = Window(before, tuple(observed.events[start:position]), event)
            if window.whole:
                yield window
            start, before = position + 1, event


def optimizers(observed: Observed) -> list[str]:
    """Those that have stepped, in order."""
    return list(dict.fromkeys(event.who for event in observed.of("step")))


def training_loader(observed: Observed) -> str | None:
    """The loader whose batches are followed by a backward; None if the loop has none."""
    last, followed = None, Counter[str]()
    for event in observed.of("batch", "backward"):
        if event.kind == "batch":
            last = event.who
        elif last is not None:
            followed[last] += 1
            last = None
    return followed.most_common(1)[0][0] if followed else None


@dataclass(frozen=True, eq=False)
class Epoch:
    """One pass over a loader, as far as it was seen."""

    begun: Event
    batches: tuple[Event, ...]

    @property
    def fingerprints(self) -> list[str]:
        """Of its batches, in order."""
        return [event.numbers["fingerprint"] for event in self.batches if event.numbers.get("fingerprint")]

    @property
    def complete(self) -> bool:
        """True if every batch that the loader has was seen."""
        return len(self.batches) == self.begun.numbers.get("length")


def epochs(observed: Observed, loader: str) -> list[Epoch]:
    """The passes over one loader."""
    found: list[tuple[Event, list[Event]]] = []
    for event in observed.of("epoch", "batch"):
        if event.who == loader and event.kind == "epoch":
            found.append((event, []))
        elif event.who == loader and found:
            found[-1][1].append(event)
    return [Epoch(begun, tuple(batches)) for begun, batches in found]


def number(event: Event, name: str) -> float:
    """One of an event's numbers; 0 where it was not looked at."""
    value = event.numbers.get(name)
    return 0.0 if value is None else float(value)
