"""What kind of mistake a wrong gradient looks like: a constant factor, a sign, a transpose, one row, a missing term ...

Each hint is a sentence for the report, tried from the most specific to the least; none is part of a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

FITS = 1e-3  # a pattern explains the difference when what it leaves over is below this share of the difference


def hints(yours: Tensor, truth: Tensor) -> list[str]:
    """Sentences on how `yours` differs from `truth` (same shape, float64), the best explanation first; none may fit."""
    return list(_hints(yours, truth))


def _hints(yours: Tensor, truth: Tensor) -> Iterator[str]:
    difference = yours - truth
    if not torch.isfinite(yours).all():
        yield f"{int((~torch.isfinite(yours)).sum()):,} of {yours.numel():,} entries of your gradient are inf or nan"
        return
    if float(yours.norm()) == 0:
        yield "your gradient is zero everywhere: the path is detached, or the backward returns zeros"
        return
    if (ratio := constant_ratio(yours, truth)) is not None:
        yield _factor(ratio)
        return
    yield from _rearranged(yours, truth)
    yield from _confined(difference)
    yield from _masked(yours, truth)
    yield from _missing_term(difference)


def constant_ratio(yours: Tensor, truth: Tensor) -> float | None:
    """c with yours = c · truth, or None."""
    square = float((truth * truth).sum())
    if square == 0:
        return None
    ratio = float((yours * truth).sum()) / square
    left = float((yours - ratio * truth).norm())
    return ratio if left <= FITS * float((yours - truth).norm()) else None


def _factor(ratio: float) -> str:
    if abs(ratio + 1) < FITS:
        return "your gradient is the chain rule's with the opposite sign"
    return (
        f"ratio yours/chain rule = {ratio:.4g} at every nonzero element: a constant factor, not a wrong formula; "
        "look for a scale applied twice or left out, or a branch counted twice"
    )


def _rearranged(yours: Tensor, truth: Tensor) -> Iterator[str]:
    size = FITS * float((yours - truth).norm())
    if truth.ndim >= 2 and truth.shape[-1] == truth.shape[-2] and float((yours - truth.mT).norm()) <= size:
        yield "your gradient is the transpose of the chain rule's (last two axes)"
    for axis in range(truth.ndim):
        for shift in (1, -1):
            if truth.shape[axis] > 2 and float((yours - truth.roll(shift, axis)).norm()) <= size:
                yield f"your gradient is the chain rule's shifted by {shift:+d} along axis {axis}: off by one"


def _confined(difference: Tensor) -> Iterator[str]:
    squares = difference**2
    total = float(squares.sum())
    if float(squares.max()) >= (1 - FITS**2) * total and difference.numel() > 1:
        index = tuple(int(i) for i in torch.unravel_index(squares.argmax(), squares.shape))
        yield f"only the entry {index} is wrong"
        return
    for axis in range(difference.ndim):
        if difference.shape[axis] < 3:
            continue
        others = [other for other in range(difference.ndim) if other != axis]
        per_slice = squares.sum(others) if others else squares
        if float(per_slice.max()) >= (1 - FITS**2) * total:
            yield f"only slice {int(per_slice.argmax())} of axis {axis} (size {difference.shape[axis]}) is wrong"


def _masked(yours: Tensor, truth: Tensor) -> Iterator[str]:
    dropped = (yours == 0) & (truth != 0)
    share = float(dropped.double().mean())
    if share > 0 and float((yours - truth)[~dropped].norm()) <= FITS * float((yours - truth).norm()):
        yield f"{share:.1%} of the entries are zero in your gradient and not in the chain rule's; the rest agree: a wrong mask"
    extra = (yours != 0) & (truth == 0)
    share = float(extra.double().mean())
    if share > 0 and float((yours - truth)[~extra].norm()) <= FITS * float((yours - truth).norm()):
        yield f"{share:.1%} of the entries should be zero (masked) and are not; the rest agree: a mask left out"


def _missing_term(difference: Tensor) -> Iterator[str]:
    for axis in range(difference.ndim):
        if difference.shape[axis] < 3:
            continue
        if float((difference - difference.mean(axis, keepdim=True)).norm()) <= FITS * float(difference.norm()):
            yield f"the difference is constant along axis {axis}: a term that is summed or averaged over it is missing"
