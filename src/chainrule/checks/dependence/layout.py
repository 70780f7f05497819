"""Which axis of inputs and outputs counts the examples and which the positions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from chainrule.checks.dependence.taps import Run, Tap


@dataclass(frozen=True)
class Axes:
    """The axis of positions (or of examples) in a tap and in the output, and its length.

    before  positions that the output has before those of the tap, such as an image's
    """

    tap: int
    output: int
    length: int
    before: int = 0


def position_axes(tap: Tap, output: Tensor, *, time_first: bool = False) -> Axes | None:
    """Where both count positions: (B, T, ...) or (B, C, T), or (T, B, ...); None if no axis fits."""
    if time_first:
        return _same(tap.value, output, ((0, 0),))
    last = (tap.value.dim() - 1, output.dim() - 1)
    if tap.indices is None:
        return _same(tap.value, output, ((1, 1), last, (1, last[1]), (last[0], 1)))
    if not _of_examples(tap.indices, output):
        return None
    return _same(tap.value, output, ((1, 1), (1, last[1]))) or _longer(tap.value, output)


def example_axes(tap: Tap, output: Tensor, *, time_first: bool = False) -> Axes | None:
    """Where both count examples."""
    axis = 1 if time_first else 0
    if tap.indices is not None and tap.indices.dim() <= axis:
        return None
    return _same(tap.value, output, ((axis, axis),))


def is_time_first(run: Run, integers: list[Tensor]) -> bool:
    """True if targets are inputs shifted along the first axis, not along the second."""
    looked_up = [tap.indices for tap in run.taps if tap.indices is not None and tap.indices.dim() == 2]
    alike = [(ids, y) for ids in looked_up for y in integers if y.shape == ids.shape and min(ids.shape) > 1]
    return any(shifted(ids, y, 0) and not shifted(ids, y, 1) for ids, y in alike)


def shifted(inputs: Tensor, targets: Tensor, axis: int) -> bool:
    """True if targets[t] = inputs[t + 1] along the axis, but for the places left out by a negative target."""
    length = inputs.shape[axis] - 1
    now, ahead = targets.narrow(axis, 0, length), inputs.narrow(axis, 1, length)
    used = now >= 0
    return bool(used.any()) and bool((now == ahead)[used].all())


def _of_examples(indices: Tensor, output: Tensor) -> bool:
    """True for (B, T) integers that are no table of distances between positions (the same along every diagonal)."""
    if indices.dim() != 2 or indices.shape[0] != output.shape[0]:
        return False
    square = indices.shape[0] == indices.shape[1] > 1
    return not (square and bool((indices[1:, 1:] == indices[:-1, :-1]).all()))


def _longer(value: Tensor, output: Tensor) -> Axes | None:
    """Where the output begins with positions of something else."""
    length = value.shape[1]
    if output.dim() != 3 or not output.shape[1] > length > 1:
        return None
    return Axes(1, 1, length, output.shape[1] - length)


def _same(first: Tensor, second: Tensor, pairs: tuple[tuple[int, int], ...]) -> Axes | None:
    for a, b in pairs:
        if 0 <= a < first.dim() and 0 <= b < second.dim() and first.shape[a] == second.shape[b] > 1:
            return Axes(a, b, first.shape[a])
    return None
