"""Ops that read or write entries at indices: forward picks, backward adds up what comes back to each place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
Indices = Sequence[Tensor | None]
SELF = ("self",)

# --- reading ----------------------------------------------------------------------------------------------------------


@rules.vjp(aten.index.Tensor, aten._unsafe_index.Tensor, nondiff=("indices",), linear_in=SELF)
def index_tensors(g: Tensor, y: Tensor, self: Tensor, indices: Indices) -> Mapping[str, Tensor]:
    """y = self[indices]                    dL/dself = 0, plus g at [indices]"""
    return {"self": aten.index_put(g.new_zeros(self.shape), indices, g, True)}


@rules.vjp(aten.index_select.default, nondiff=("index",), linear_in=SELF)
def index_select(g: Tensor, y: Tensor, self: Tensor, dim: int, index: Tensor) -> Mapping[str, Tensor]:
    """y[.., i, ..] = self[.., index_i, ..]     dL/dself = 0, plus g at index"""
    if not self.dim():
        return {"self": g.sum()}
    return {"self": g.new_zeros(self.shape).index_add(dim, index, g)}


@rules.vjp(aten.gather.default, nondiff=("index",), linear_in=SELF)
def gather(g: Tensor, y: Tensor, self: Tensor, dim: int, index: Tensor) -> Mapping[str, Tensor]:
    """y[i, j] = self[index[i, j], j]       dL/dself = 0, plus g at [index[i, j], j]"""
    return {"self": g.new_zeros(self.shape).scatter_add(dim, index, g)}


@rules.vjp(aten.take_along_dim.default, nondiff=("indices",), linear_in=SELF)
def take_along_dim(g: Tensor, y: Tensor, self: Tensor, indices: Tensor, dim: int | None) -> Mapping[str, Tensor]:
    """y[i, j] = self[indices[i, j], j]     dL/dself = 0, plus g at [indices[i, j], j]"""
    if dim is None:
        return take(g, y, self, indices)
    axis = dim % self.dim()
    shape = [y.shape[i] if i != axis else size for i, size in enumerate(self.shape)]
    return {"self": g.new_zeros(shape).scatter_add(axis, (indices % self.shape[axis]).expand(y.shape), g)}


@rules.vjp(aten.take.default, nondiff=("index",), linear_in=SELF)
def take(g: Tensor, y: Tensor, self: Tensor, index: Tensor) -> Mapping[str, Tensor]:
    """y_i = the entry number index_i of self       dL/dself = 0, plus g at these"""
    flat = g.new_zeros(self.numel()).index_add(0, index.reshape(-1) % self.numel(), g.reshape(-1))
    return {"self": flat.reshape(self.shape)}


@rules.vjp(aten.masked_select.default, nondiff=("mask",), linear_in=SELF)
def masked_select(g: Tensor, y: Tensor, self: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    """y = the entries of self where mask   dL/dself = 0, g where mask"""
    common, full_mask = aten.broadcast_tensors((self, mask))
    return {"self": torch.zeros_like(common).masked_scatter(full_mask, g)}


# --- writing ----------------------------------------------------------------------------------------------------------


@rules.vjp(aten.index_put.default, aten._unsafe_index_put.default, nondiff=("indices",), linear_in=("self", "values"))
def index_put(g: Tensor, y: Tensor, values: Tensor, indices: Indices, accumulate: bool) -> Mapping[str, Tensor]:
    """y = self, but values put or added at [indices]       dL/dself = g (0 there, if put)      dL/dvalues = g there"""
    kept = g if accumulate else aten.index_put(g, indices, torch.zeros_like(values))
    return {"self": kept, "values": aten.index(g, indices)}


@rules.vjp(aten.index_add.default, nondiff=("index",), linear_in=("self", "source"))
def index_add(g: Tensor, y: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float) -> Mapping[str, Tensor]:
    """y = self, plus α source at index     dL/dself = g        dL/dsource = α g at index"""
    return {"self": g, "source": g.index_select(dim, index).reshape(source.shape) * alpha}


@rules.vjp(aten.index_copy.default, nondiff=("index",), linear_in=("self", "source"))
def index_copy(g: Tensor, y: Tensor, dim: int, index: Tensor, source: Tensor) -> Mapping[str, Tensor]:
    """y = self, but source at index        dL/dself = g, 0 at index        dL/dsource = g at index"""
    return {"self": g.index_fill(dim, index, 0), "source": g.index_select(dim, index).reshape(source.shape)}


@rules.vjp(aten.index_fill.int_Scalar, nondiff=("index",), linear_in=SELF)
def index_fill(g: Tensor, y: Tensor, dim: int, index: Tensor) -> Mapping[str, Tensor]:
    """y = self, but a constant at index    dL/dself = g, 0 at index"""
    return {"self": g.index_fill(dim, index, 0)}


@rules.vjp(aten.index_fill.int_Tensor, nondiff=("index",), linear_in=("self", "value"))
def index_fill_tensor(g: Tensor, y: Tensor, dim: int, index: Tensor) -> Mapping[str, Tensor]:
    """y = self, but value at index         dL/dself = g, 0 at index        dL/dvalue = Σ g at index"""
    kept = g.index_fill(dim, index, 0)
    return {"self": kept, "value": (g - kept).sum()}


@rules.vjp(aten.scatter.src, nondiff=("index",), linear_in=("self", "src"))
def scatter(g: Tensor, y: Tensor, dim: int, index: Tensor, src: Tensor) -> Mapping[str, Tensor]:
    """y = self, but y[index[i, j], j] = src[i, j]      dL/dself = g, 0 there       dL/dsrc = g there"""
    return {"self": g.scatter(dim, index, 0), "src": g.gather(dim, index)}


@rules.vjp(aten.scatter.value, nondiff=("index",), linear_in=SELF)
def scatter_value(g: Tensor, y: Tensor, dim: int, index: Tensor) -> Mapping[str, Tensor]:
    """y = self, but y[index[i, j], j] = value          dL/dself = g, 0 there"""
    return {"self": g.scatter(dim, index, 0)}


@rules.vjp(aten.scatter_add.default, nondiff=("index",), linear_in=("self", "src"))
def scatter_add(g: Tensor, y: Tensor, dim: int, index: Tensor, src: Tensor) -> Mapping[str, Tensor]:
    """y = self, plus src[i, j] at [index[i, j], j]     dL/dself = g                dL/dsrc = g there"""
    return {"self": g, "src": g.gather(dim, index)}


@rules.vjp(aten.masked_scatter.default, nondiff=("mask",), linear_in=("self", "source"))
def masked_scatter(g: Tensor, y: Tensor, mask: Tensor, source: Tensor) -> Mapping[str, Tensor]:
    """y = self, but entries of source where mask   dL/dself = g, 0 where mask      dL/dsource = g where mask"""
    taken = g.masked_select(mask)
    padded = torch.cat([taken, taken.new_zeros(source.numel() - taken.numel())])
    return {"self": torch.where(mask, 0, g), "source": padded.reshape(source.shape)}
