"""Which steps of a loop are looked at closely: the first few, then ever fewer, and never more than the loop can spare.

A close look copies parameters, gradients and state and has the judges compute each step again; that takes as long as several
steps of a small model. So looks limit themselves: after the sixteenth step one that is due waits until all looks so far have
taken no more than a fiftieth of the time that the loop has run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST = 16  # up to this step a look is never put off: what goes wrong at once is seen at once
SHARE = 0.02  # of the time since the first step


class Pace:
    """Decides from step to step; `limited` is False where every look that is due is to be made."""

    def __init__(self) -> None:
        self.limited = True
        self._spent = 0.0
        self._begun: float | None = None
        self._due = 1

    def wanted(self, number: int) -> bool:
        """Whether the step of this number is looked at closely; to be asked once for each step, when it begins."""
        if self._begun is None and number > 1:
            self._begun = time.perf_counter()
        if number < self._due or (number > FIRST and self.limited and not self._affordable()):
            return False
        self._due = due_after(number)
        return True

    def _affordable(self) -> bool:
        return self._begun is not None and self._spent <= SHARE * (time.perf_counter() - self._begun)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What the block takes is part of a close look."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent += time.perf_counter() - start


def due_after(number: int) -> int:
    """The steps 1, 2, 3, 4 and then 8, 16, 32 ...: what goes wrong later is seen too, at a cost that vanishes."""
    return number + 1 if number < 4 else 1 << number.bit_length()
