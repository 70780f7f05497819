"""same-order-every-epoch: every epoch shows the data in the same order, or every update the same batch.

What it checks
    The batches with which an epoch of the training data begins are others than those of the epoch before.
Why it matters
    A sampler that is not told the epoch (set_epoch), or a seed set anew in each epoch, repeats one shuffle for ever; a
    new iterator in every step never gets past the first batch. It trains, and generalises worse.
How it decides
    The first three batches of all epochs, eight samples at least, have the same fingerprints: 1 in 40,320 by chance.
    A warning: an order can be meant (a curriculum, a series in time).
Broken
    sampler = DistributedSampler(data)                   # and never sampler.set_epoch(epoch)
Repaired
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
Limits
    Loops over a torch DataLoader. Random augmentation hides it.
"""

from __future__ import annotations

import itertools

from chainrule.checks.loop.timeline import Epoch, epochs, training_loader
from chainrule.finding import Finding, Line, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "same-order-every-epoch"
BATCHES, SAMPLES = 3, 8


def judge(observed: Observed) -> Outcome:
    """Whether the epochs begin alike."""
    loader = training_loader(observed)
    if loader is None:
        return NotRun("the loop takes no batches from a DataLoader")
    begun = [epoch for epoch in epochs(observed, loader) if epoch.batches]
    if _only_the_first(begun):
        return [_same_batch(loader, begun)]
    starts = [start for epoch in begun if (start := _start(epoch)) is not None]
    if len(starts) < 2:
        return NotRun("fewer than two epochs were seen from their beginning")
    alike = all(start == starts[0] for start in starts) and len(set(starts[0])) > 1
    return [_finding(loader, begun, len(starts))] if alike else []


def _start(epoch: Epoch) -> tuple[str, ...] | None:
    """The fingerprints of its first batches; None if too little of it was seen to tell by them."""
    first = epoch.batches[:BATCHES]
    updates = [epoch.begun.update, *(event.update for event in first)]
    gaps = any(later - earlier > 1 for earlier, later in itertools.pairwise(updates))
    samples = sum(event.numbers.get("size") or 0 for event in first)
    whole = len(first) == BATCHES and all(event.numbers.get("fingerprint") for event in first)
    return tuple(epoch.fingerprints[:BATCHES]) if whole and not gaps and samples >= SAMPLES else None


def _only_the_first(begun: list[Epoch]) -> bool:
    """True if an iterator is made for each batch, and each gives the same one."""
    marks = {mark for epoch in begun for mark in epoch.fingerprints}
    single = all(len(epoch.batches) == 1 and (epoch.begun.numbers.get("length") or 0) > 1 for epoch in begun)
    return len(begun) >= BATCHES and single and len(marks) == 1


def _line(begun: list[Epoch]) -> Line | None:
    return next((epoch.begun.line for epoch in begun if epoch.begun.line), None)


def _same_batch(loader: str, begun: list[Epoch]) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=loader,
        source=_line(begun),
        message=f"each of {len(begun)} updates sees the same batch: the loader is begun anew every time",
        evidence={"epochs": len(begun), "length": begun[0].begun.numbers.get("length")},
        notes=("Keep the iterator: next(iter(loader)) in the loop gives the first batch for ever.",),
    )


def _finding(loader: str, begun: list[Epoch], count: int) -> Finding:
    shuffles = bool(begun[-1].begun.numbers.get("shuffled"))
    return Finding(
        check=NAME,
        severity="warning",
        where=loader,
        source=_line(begun),
        message=f"{count} epochs begin with the same batches"
        + (": its sampler gives one order for ever" if shuffles else ": the loader does not shuffle"),
        evidence={"epochs": count, "shuffles": shuffles},
        notes=(
            "Call sampler.set_epoch(epoch) before each epoch, and seed the loader's generator once, not in every epoch."
            if shuffles
            else "Give the DataLoader shuffle=True, unless the order is meant.",
        ),
    )
