"""Ctrl-C and SIGTERM: what must not be cut is finished first, a step of training or an import.

Imports no torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether a stop was asked for."""

    requested: bool = False


@contextmanager
def stop_on_signals(tell: Callable[[], None]) -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into `stop.requested`, and `tell` it; a second one raises KeyboardInterrupt.

    Outside the main thread signals cannot be caught and nothing is changed. The handlers of before come back.
    """
    stop = Stop()

    def request(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        tell()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Let the block end before a Ctrl-C takes effect."""
    with stop_on_signals(lambda: None) as stop:
        yield
    if stop.requested:
        raise KeyboardInterrupt
