"""Work whose warnings nobody sees, in a program that must print its own as often as it would alone.

`warnings.catch_warnings` makes Python forget which lines have warned (it counts up the version of the filters, and every
line's register is of a version): each look at a program would have its lines warn once more.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwarned() -> Iterator[None]:
    """While the block runs no warning is shown, raised, or remembered as shown."""
    ignoring = ("ignore", None, Warning, None, 0)
    filters = warnings.filters
    filters.insert(0, ignoring)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # Not by position: the block may have put others before it. Not by equality: the user may have one like it.
        filters[:] = [kept for kept in filters if kept is not ignoring]  # type: ignore[index]
