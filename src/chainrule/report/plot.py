"""Curves in plain characters, for a terminal: one mark for each curve, an axis at the left, the legend below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MARKS = "●○×+*#"
TICKS = 4  # rows between two numbers at the left


@dataclass(frozen=True)
class Series:
    """A curve: its name in the legend, and its points; those that are not finite are left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]

    def points(self) -> Iterator[tuple[float, float]]:
        """(x, y) of the points that can be drawn."""
        return ((x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(x) and math.isfinite(y))


def plot(series: Sequence[Series], *, axis: str, width: int = 66, height: int = 16) -> list[str]:
    """The lines of the plot; where two curves meet the later one is seen. `axis` names what is along the bottom.

    Without a point that can be drawn it is one line that says so.
    """
    points = [point for one in series for point in one.points()]
    if not points:
        return [f"nothing to draw: no finite point of {', '.join(one.label for one in series)}"]
    left, right = _range([x for x, _ in points])
    low, high = _range([y for _, y in points])
    rows = [[" "] * width for _ in range(height + 1)]
    if low < 0 < high:
        rows[round(high / (high - low) * height)] = ["·"] * width
    for mark, one in zip(MARKS, series, strict=False):
        for x, y in one.points():
            rows[round((high - y) / (high - low) * height)][round((x - left) / (right - left) * (width - 1))] = mark
    digits = _digits(low, high, (high - low) * TICKS / height)
    ticks = [f"{high - number * (high - low) / height:.{digits}g}" for number in range(height + 1)]
    lines = [_row("".join(row), ticks[number], number) for number, row in enumerate(rows)]
    ends = f"{left:.4g}".ljust(width - len(f"{right:.4g}")) + f"{right:.4g}"
    legend = "   ".join(f"{mark} {one.label}" for mark, one in zip(MARKS, series, strict=False))
    return [*lines, " " * 9 + "└" + "─" * width, " " * 10 + ends, f"{'':10}{legend}      →  {axis}"]


def _row(marks: str, tick: str, number: int) -> str:
    labelled = f"{tick:>8} ┤" if number % TICKS == 0 else " " * 9 + "│"
    return (labelled + marks).rstrip()


def _digits(low: float, high: float, step: float) -> int:
    """Significant digits by which neighbouring numbers at the left differ: 3, more where the range is narrow, at most 7."""
    return min(max(3, math.ceil(math.log10(max(abs(low), abs(high)) / step)) + 1), 7)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, never the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - abs(low) / 2 - 1e-9, high + abs(high) / 2 + 1e-9)
