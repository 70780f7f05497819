"""Padding and sliding windows: forward copies an entry to several places, backward sums the gradients from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
SELF = ("self",)


@rules.vjp(aten.constant_pad_nd.default, linear_in=SELF)
def constant_pad(g: Tensor, y: Tensor, pad: Sequence[int]) -> Mapping[str, Tensor]:
    """y = self with a constant around it   dL/dself = g without the margin"""
    return {"self": aten.constant_pad_nd(g, [-margin for margin in pad])}


@rules.vjp(aten.pad.default, linear_in=SELF)
def pad_by_mode(g: Tensor, y: Tensor, self: Tensor, pad: Sequence[int], mode: str) -> Mapping[str, Tensor]:
    """y = self with a margin around it     dL/dself = Σ over the places of an entry, of g there"""
    if mode == "constant":
        return constant_pad(g, y, pad)
    return {"self": _fold(g, self.shape, pad, mode)}


@rules.vjp(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default, linear_in=SELF)
def reflection_pad(g: Tensor, y: Tensor, self: Tensor, padding: Sequence[int]) -> Mapping[str, Tensor]:
    """y = self mirrored at its borders     dL/dself = Σ over the places of an entry, of g there"""
    return {"self": _fold(g, self.shape, padding, "reflect")}


@rules.vjp(
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default, linear_in=SELF
)
def replication_pad(g: Tensor, y: Tensor, self: Tensor, padding: Sequence[int]) -> Mapping[str, Tensor]:
    """y = self with its border repeated    dL/dself = Σ over the places of an entry, of g there"""
    return {"self": _fold(g, self.shape, padding, "replicate")}


@rules.vjp(aten._pad_circular.default, linear_in=SELF)
def circular_pad(g: Tensor, y: Tensor, self: Tensor, pad: Sequence[int]) -> Mapping[str, Tensor]:
    """y = self, continued periodically     dL/dself = Σ over the places of an entry, of g there"""
    return {"self": _fold(g, self.shape, pad, "circular")}


def _fold(g: Tensor, shape: Sequence[int], pad: Sequence[int], mode: str) -> Tensor:
    """The gradients of all places of an entry summed, one dimension after the other; pad lists the last one first."""
    for number, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = len(shape) - 1 - number
        places = torch.arange(g.shape[dim], device=g.device) - before
        folded = [g.shape[axis] if axis != dim else size for axis, size in enumerate(shape)]
        g = g.new_zeros(folded).index_add(dim, _source(places, shape[dim], before, after, mode), g)
    return g


def _source(places: Tensor, size: int, before: int, after: int, mode: str) -> Tensor:
    """The entry of 0 .. size − 1 that padding puts at each place, where places before the first are negative."""
    if mode == "replicate":
        return places.clamp(0, size - 1)
    if mode == "circular":  # a negative margin crops first, and what is left is continued
        first, last = max(-before, 0), size - max(-after, 0)
        return first + (places - first) % (last - first)
    period = 2 * max(size - 1, 1)
    return (size - 1) - ((size - 1) - places % period).abs()


@rules.vjp(aten.unfold.default, linear_in=SELF)
def unfold(g: Tensor, y: Tensor, self: Tensor, dimension: int, size: int, step: int) -> Mapping[str, Tensor]:
    """y[.., w, .., i] = self[.., w·step + i, ..]       dL/dself = Σ over the windows w with an entry, of g there"""
    if not self.dim():
        return {"self": g.sum()}
    dim = dimension % self.dim()
    starts = torch.arange(y.shape[dim], device=g.device) * step
    places = (starts[:, None] + torch.arange(size, device=g.device)).flatten()
    windows = g.movedim(-1, dim + 1).flatten(dim, dim + 1)
    return {"self": g.new_zeros(self.shape).index_add(dim, places, windows)}
