"""Which rows of an activation move: an entry at token t moves row t, and after causal attention the rows from t on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Positions start ... stop - 1 of dimension `dim`, counted without the leading N."""

    dim: int
    start: int
    stop: int

    def of(self, base: Tensor) -> Tensor:
        """These rows of a tensor without a leading dimension."""
        return base.narrow(self.dim, self.start, self.stop - self.start)

    def at(self, dim: int) -> Rows:
        """The same positions of another dimension."""
        return Rows(dim, self.start, self.stop)


def widen(value: Tensor, rows: Rows, wanted: Rows, still: Tensor) -> Tensor:
    """(N, ...) at the wanted rows, of which `rows` move."""
    if rows == wanted:
        return value
    whole = wanted.of(still).expand(value.shape[0], *wanted.of(still).shape).clone()
    whole.narrow(wanted.dim + 1, rows.start - wanted.start, rows.stop - rows.start).copy_(value)
    return whole


def moving_rows(tangent_C: Tensor) -> Rows | None:
    """The rows in which some of C tangents is not zero, along the dimension in which they are fewest, the last one aside.

    None if they are all, or if there is but one dimension.
    """
    best, share = None, 1.0
    for dim in range(tangent_C.dim() - 2):
        others = [d for d in range(tangent_C.dim()) if d != dim + 1]
        where = (tangent_C != 0).any(dim=others[-1])
        for d in reversed(others[:-1]):
            where = where.any(dim=d)
        places = where.nonzero().view(-1)
        if len(places) and (int(places[-1]) + 1 - int(places[0])) / len(where) < share:
            best = Rows(dim, int(places[0]), int(places[-1]) + 1)
            share = (best.stop - best.start) / len(where)
    return best


def rows_that_differ(output: Tensor, still: Tensor) -> Rows | None:
    """The rows of the last but one dimension in which some of N outputs differs from the base value."""
    if still.dim() < 2:
        return None
    differs = (output != still).any(dim=-1)
    while differs.dim() > 1:
        differs = differs.any(dim=0)
    places = differs.nonzero().view(-1)
    if not len(places) or len(places) == len(differs):
        return None
    return Rows(still.dim() - 2, int(places[0]), int(places[-1]) + 1)
