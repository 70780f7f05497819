"""How much memory a preflight needs, and how much there is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from chainrule.capture.tape import Tape
from chainrule.graph import Value

DOUBLE = 8  # bytes
SHARE = 0.8  # of the free memory that a preflight may take


def needed(tape: Tape) -> int:
    """Bytes of a full preflight at its peak, an upper estimate.

    In float64 it holds every value and every adjoint of the graph, and of the parameters besides a promoted copy, the
    gradients of two engines, a direction and the parameters moved along it.
    """
    values = sum(tensor.numel() for value in tape.values.values() for tensor in _tensors(value))
    parameters = sum(leaf.value.numel() for leaf in tape.graph.parameters.values())
    return DOUBLE * (2 * values + 5 * parameters)


def free() -> int | None:
    """Bytes that this machine can still give to a process; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def in_words(count: int) -> str:
    """`0.3 GB`, `12 MB`."""
    return f"{count / 2**30:.2g} GB" if count > 2**29 else f"{-(-count // 2**20)} MB"


def _tensors(value: Value) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
