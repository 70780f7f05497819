"""The error of a numerical derivative over the step h: truncation at the right, round-off at the left, a V."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from chainrule.numdiff.stencils import Line, central, forward, order8

STEPS = tuple(10.0 ** (-k / 2) for k in range(2, 29))
MARKS = {"forward": "f", "central": "c", "order8": "8"}


@dataclass(frozen=True)
class Sweep:
    """|numerical - reference| of each method at each step.

    h          steps, longest first
    errors     method -> error at each step
    reference  the derivative held to be right
    """

    h: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]
    reference: float

    def best(self, method: str) -> tuple[float, float]:
        """(h, error) at which the method came closest."""
        error, h = min(zip(self.errors[method], self.h, strict=True))
        return h, error


def sweep(line: Line, reference: float, steps: Sequence[float] = STEPS) -> Sweep:
    """The error of forward, central and order-8 difference of one line at each step."""
    h = torch.tensor(sorted(steps, reverse=True), dtype=torch.float64)
    values = {
        "forward": [float(forward(line, step).value) for step in h],
        "central": [float(central(line, step, noise=0.0).value) for step in h],
        "order8": [float(order8(line, step, noise=0.0).value) for step in h],
    }
    errors = {method: tuple(abs(value - reference) for value in series) for method, series in values.items()}
    return Sweep(tuple(h.tolist()), errors, reference)


def table(result: Sweep) -> list[tuple[str, ...]]:
    """Rows of text: a heading, then h and each method's error."""
    heading = ("h", *result.errors)
    columns = [result.h, *result.errors.values()]
    return [heading, *(tuple(f"{number:.1e}" for number in row) for row in zip(*columns, strict=True))]


def plot(result: Sweep, height: int = 18) -> str:
    """log10 of the error over log10 of the step, in plain characters; the longest step is at the right."""
    columns = list(reversed(range(len(result.h))))
    levels = [_decade(error) for series in result.errors.values() for error in series]
    top, bottom = max(levels), min(levels)
    rows = [[" "] * len(columns) for _ in range(height + 1)]
    for method, series in result.errors.items():
        for x, column in enumerate(columns):
            y = round((top - _decade(series[column])) / max(top - bottom, 1e-9) * height)
            rows[y][x] = MARKS[method]
    lines = ["error"]
    for y, row in enumerate(rows):
        lines.append(f"{10 ** (top - y * (top - bottom) / height):8.0e} |{'  '.join(row)}")
    smallest, longest = min(result.h), max(result.h)
    width = 3 * len(columns) - 2
    lines.append(" " * 9 + "+" + "-" * width)
    lines.append(" " * 10 + f"h = {smallest:.0e}".ljust(width - 6) + f"{longest:.0e}")
    lines.append(" " * 10 + "f forward   c central   8 order 8      left: round-off      right: truncation")
    return "\n".join(lines)


def _decade(error: float) -> float:
    """log10 of the error; an exact hit is drawn at the bottom, 1e-17."""
    return math.log10(max(error, 1e-17)) if math.isfinite(error) else 0.0
