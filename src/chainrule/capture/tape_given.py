"""Which constants of a recorded program are data: the numbers that its DataLoaders gave last.

What the model is called with is the batch as far as the model sees it. The labels do not pass through the model: to the
tape they are tensors from outside, like a table of the loss. A loader's batch tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from chainrule.capture.batches import tensors_of
from chainrule.graph import Graph, Leaf


def with_given(graph: Graph, batches: Iterable[Any]) -> Graph:
    """The graph with each constant that holds the numbers of a tensor of these batches as a leaf of the batch.

    The numbers are compared, not the memory: a program reshapes, casts and moves what its loader gives before it calls its
    model. A single number, which may be equal by chance, is left a constant.
    """
    given = [(place, tensor) for batch in batches for place, tensor in tensors_of(batch).items() if tensor.numel() > 1]
    return replace(graph, leaves={name: _known(leaf, given) for name, leaf in graph.leaves.items()})


def _known(leaf: Leaf, given: list[tuple[str, Tensor]]) -> Leaf:
    if leaf.kind != "constant":
        return leaf
    place = next((place for place, tensor in given if _same_numbers(leaf.value, tensor)), None)
    return leaf if place is None else replace(leaf, kind="batch", paths=(place,))


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    """True for the same numbers in any shape, on any device; in the narrower dtype of the two, to which one was cast."""
    if one.numel() != other.numel() or not (one.layout is other.layout is torch.strided):
        return False
    if one.is_complex() or other.is_complex():
        return False
    one, other = one.detach().flatten().cpu(), other.detach().flatten().cpu()
    return any(torch.equal(one.to(dtype), other.to(dtype)) for dtype in {torch.float64, one.dtype})
