"""A few steps of the user's own loop, made where nothing of the user's can change, and watched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from chainrule.errors import SetupError
from chainrule.setups import Setup
from chainrule.watch.observed import Observed
from chainrule.watch.observer import Observer

STEPS = 4  # what goes wrong from one step to the next shows by the second; the third repeats it


def rehearse(setup: Setup, steps: int = STEPS) -> Observed:
    """Train for a few steps and return what was seen. It really trains: call it in a copy of the process."""
    if not setup.optimizers:
        raise SetupError("a rehearsal needs Setup.optimizer")
    observer = Observer([setup.module])
    observer.observed.rehearsal = True
    batches = _endless(setup)
    with observer.watching() as observed:
        for _ in range(steps):
            if setup.step is None:
                _step(setup, batches)
            else:
                setup.step(setup.model, next(batches), setup.optimizer)
    return observed


def _endless(setup: Setup) -> Iterator[Any]:
    """The set-up's batches, from the beginning again where they end, but at most four are kept."""
    return itertools.cycle(list(itertools.islice(iter(setup.batches), STEPS)))


def _step(setup: Setup, batches: Iterator[Any]) -> None:
    """The step of a loop that does everything right, with what the set-up names."""
    scaler = setup.scaler
    for optimizer in setup.optimizers:
        optimizer.zero_grad()
    for _ in range(setup.accumulate):
        loss: Tensor = setup.loss(setup.model, next(batches)) / setup.accumulate
        (loss if scaler is None else scaler.scale(loss)).backward()
    for optimizer in setup.optimizers:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
    if scaler is not None:
        scaler.update()
    if setup.schedule is not None:
        setup.schedule.step()
