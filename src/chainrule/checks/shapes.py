"""The same batch in awkward shapes: one example, three, an odd length; and what a batch's axes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from chainrule.capture.batches import tensors_of, with_tensors


def awkward(batch: Any) -> Iterator[tuple[str, Any]]:
    """(what it is, the batch) for each shape that can be cut from it: nothing if its tensors have no axis in common."""
    size = examples(batch)
    if size is not None and size > 1:
        yield "with one example", cut(batch, 0, size, 1)
    if size is not None and size != 3:
        yield "with three examples", cut(batch, 0, size, 3)
    length = positions(batch)
    if length is not None and length > 3:
        shorter = length - 1 if length % 2 == 0 else length - 2
        yield f"with {shorter} positions", cut(batch, 1, length, shorter)


def examples(batch: Any) -> int | None:
    """The size of the first axis, if all tensors of the batch that have one agree on it."""
    sizes = {tensor.shape[0] for tensor in tensors_of(batch).values() if tensor.dim() > 0}
    return sizes.pop() if len(sizes) == 1 else None


def positions(batch: Any) -> int | None:
    """The size of the second axis, if all integer tensors (at least one) with two axes agree on it, and the floating too."""
    tensors = [tensor for tensor in tensors_of(batch).values() if tensor.dim() >= 2]
    sizes = {tensor.shape[1] for tensor in tensors}
    whole = any(not tensor.is_floating_point() for tensor in tensors)
    return sizes.pop() if len(sizes) == 1 and whole else None


def cut(batch: Any, axis: int, size: int, wanted: int) -> Any:
    """The first `wanted` along the axis of each tensor that has `size` there; repeated from the start if that is too few."""
    return with_tensors(batch, _cutter(axis, size, wanted))


def _cutter(axis: int, size: int, wanted: int) -> Callable[[Tensor], Tensor]:
    index = torch.arange(wanted) % size

    def cutting(tensor: Tensor) -> Tensor:
        if tensor.dim() <= axis or tensor.shape[axis] != size:
            return tensor
        return tensor.index_select(axis, index.to(tensor.device))

    return cutting
