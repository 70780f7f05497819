"""Ops that only rename or copy entries: reshape, broadcast, permute, join, cut, and casts. All are linear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
SELF = ("self",)

# --- the same entries in the same order -------------------------------------------------------------------------------


@rules.vjp(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.view_as.default,
    aten.reshape_as.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.ravel.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    linear_in=SELF,
    nondiff=("other",),
)
def view(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = self in another shape            dL/dself = g in self's shape"""
    return {"self": g.reshape(self.shape)}


@rules.vjp(
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.positive.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
    linear_in=SELF,
)
def copy(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = self                             dL/dself = g"""
    return {"self": g}


@rules.vjp(
    aten._to_copy.default,
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    linear_in=SELF,
    nondiff=("other",),
)
def cast(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = self in another dtype or on another device       dL/dself = g, cast back"""
    return {"self": g.to(device=self.device, dtype=self.dtype)}


def _copy_over_jvp(y: Tensor, t: Mapping[str, Tensor]) -> Tensor:
    return t["src"].to(y).expand_as(y)


@rules.vjp(aten.copy.default, linear_in=("src",), nondiff=SELF, jvp=_copy_over_jvp)
def copy_over(g: Tensor, y: Tensor, src: Tensor) -> Mapping[str, Tensor]:
    """y = src, in self's shape and dtype   dL/dsrc = g     dL/dself = 0"""
    return {"src": g.to(device=src.device, dtype=src.dtype)}


# --- broadcasting: forward repeats an entry, backward sums its gradients ----------------------------------------------


@rules.vjp(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default, linear_in=SELF, nondiff=("other",))
def expand(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = self, repeated over new or size-1 dimensions     dL/dself = Σ g over these, which the engine sums"""
    return {"self": g}


@rules.vjp(aten.broadcast_tensors.default, linear_in=("tensors",))
def broadcast_tensors(g: Sequence[Tensor], y: Sequence[Tensor]) -> Mapping[str, Sequence[Tensor]]:
    """y_i = tensors_i in the common shape                  dL/dtensors_i = Σ g_i over the repeated dimensions"""
    return {"tensors": g}


def _sum_repeats(g: Tensor, shape: torch.Size, repeats: Sequence[int]) -> Tensor:
    """The sum over the copies: each dimension of g is (repeats, size)."""
    full = [1] * (len(repeats) - len(shape)) + list(shape)
    blocks = g.reshape([size for pair in zip(repeats, full, strict=True) for size in pair])
    return blocks.sum(list(range(0, 2 * len(full), 2))).reshape(shape) if full else g


@rules.vjp(aten.repeat.default, linear_in=SELF)
def repeat(g: Tensor, y: Tensor, self: Tensor, repeats: Sequence[int]) -> Mapping[str, Tensor]:
    """y = copies of self side by side      dL/dself = Σ over the copies of g"""
    return {"self": _sum_repeats(g, self.shape, repeats)}


@rules.vjp(aten.tile.default, linear_in=SELF)
def tile(g: Tensor, y: Tensor, self: Tensor, dims: Sequence[int]) -> Mapping[str, Tensor]:
    """y = copies of self side by side      dL/dself = Σ over the copies of g"""
    return {"self": _sum_repeats(g, self.shape, [1] * (self.dim() - len(dims)) + list(dims))}


@rules.vjp(aten.repeat_interleave.self_int, linear_in=SELF)
def repeat_interleave(g: Tensor, y: Tensor, self: Tensor, repeats: int, dim: int | None) -> Mapping[str, Tensor]:
    """y = each entry along dim n times in a row            dL/dself = Σ over the n copies of g"""
    if dim is None:
        return {"self": g.reshape(-1, repeats).sum(1).reshape(self.shape)}
    copies = torch.unflatten(g, dim, (self.shape[dim], repeats))
    return {"self": copies.sum(dim % self.dim() + 1)}


@rules.vjp(aten.repeat_interleave.self_Tensor, linear_in=SELF, nondiff=("repeats",))
def repeat_interleave_tensor(
    g: Tensor, y: Tensor, self: Tensor, repeats: Tensor, dim: int | None
) -> Mapping[str, Tensor]:
    """y = entry i along dim repeats_i times in a row       dL/dself = Σ over the copies of g"""
    flat = self.reshape(-1) if dim is None else self
    axis = 0 if dim is None else dim
    size = flat.shape[axis]
    source = torch.repeat_interleave(torch.arange(size, device=g.device), repeats.expand(size))
    return {"self": torch.zeros_like(flat).index_add(axis, source, g).reshape(self.shape)}


# --- the same entries in another order --------------------------------------------------------------------------------


@rules.vjp(aten.permute.default, linear_in=SELF)
def permute(g: Tensor, y: Tensor, dims: Sequence[int]) -> Mapping[str, Tensor]:
    """y[i_dims] = self[i]                  dL/dself = g, permuted back"""
    return {"self": g.permute(_inverse(dims))}


def _inverse(dims: Sequence[int]) -> list[int]:
    order = [dim % len(dims) for dim in dims]
    return [order.index(dim) for dim in range(len(dims))]


@rules.vjp(aten.transpose.int, linear_in=SELF)
def transpose(g: Tensor, y: Tensor, dim0: int, dim1: int) -> Mapping[str, Tensor]:
    """y = self, two dimensions exchanged   dL/dself = g, exchanged back"""
    return {"self": g.transpose(dim0, dim1)}


@rules.vjp(aten.swapaxes.default, linear_in=SELF)
def swapaxes(g: Tensor, y: Tensor, axis0: int, axis1: int) -> Mapping[str, Tensor]:
    """y = self, two dimensions exchanged   dL/dself = g, exchanged back"""
    return {"self": g.transpose(axis0, axis1)}


@rules.vjp(aten.t.default, aten.numpy_T.default, linear_in=SELF)
def transpose_all(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = selfᵀ                            dL/dself = gᵀ"""
    return {"self": torch.permute(g, tuple(reversed(range(g.dim()))))}


@rules.vjp(aten.mT.default, aten.adjoint.default, linear_in=SELF)
def matrix_transpose(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = selfᵀ, of the last two dimensions    dL/dself = gᵀ"""
    return {"self": g.mT}


@rules.vjp(aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist, linear_in=SELF)
def movedim(g: Tensor, y: Tensor, source: Any, destination: Any) -> Mapping[str, Tensor]:
    """y = self, dimensions moved           dL/dself = g, moved back"""
    return {"self": g.movedim(destination, source)}


@rules.vjp(aten.flip.default, linear_in=SELF)
def flip(g: Tensor, y: Tensor, dims: tuple[int, ...]) -> Mapping[str, Tensor]:
    """y[i] = self[n − 1 − i]               dL/dself = g, flipped"""
    return {"self": g.flip(dims)}


@rules.vjp(aten.roll.default, linear_in=SELF)
def roll(g: Tensor, y: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Mapping[str, Tensor]:
    """y[i] = self[i − shift]               dL/dself = g, rolled back"""
    return {"self": g.roll([-shift for shift in shifts], dims)}


# --- joining and cutting ----------------------------------------------------------------------------------------------


@rules.vjp(aten.cat.default, aten.concat.default, aten.concatenate.default, linear_in=("tensors",))
def cat(g: Tensor, y: Tensor, tensors: Sequence[Tensor], dim: int) -> Mapping[str, Sequence[Tensor]]:
    """y = tensors, end to end along dim    dL/dtensors_i = the part of g at tensors_i"""
    sizes = [0 if _is_nothing(tensor) else tensor.shape[dim] for tensor in tensors]
    parts = torch.split_with_sizes(g, sizes, dim)
    return {
        "tensors": [
            part if size else torch.zeros_like(of) for part, size, of in zip(parts, sizes, tensors, strict=True)
        ]
    }


def _is_nothing(tensor: Tensor) -> bool:
    """torch.cat lets an empty vector stand beside tensors of any rank, and leaves it out."""
    return tensor.dim() == 1 and tensor.numel() == 0


@rules.vjp(aten.stack.default, linear_in=("tensors",))
def stack(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Sequence[Tensor]]:
    """y = tensors, side by side in a new dim       dL/dtensors_i = g at i"""
    return {"tensors": g.unbind(dim)}


@rules.vjp(
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    aten.chunk.default,
    aten.unsafe_chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
    linear_in=SELF,
)
def split(g: Sequence[Tensor], y: Sequence[Tensor], dim: int) -> Mapping[str, Tensor]:
    """y_i = part i of self along dim       dL/dself = the g_i, end to end"""
    return {"self": torch.cat(tuple(g), dim)}


@rules.vjp(aten.unbind.int, linear_in=SELF)
def unbind(g: Sequence[Tensor], y: Sequence[Tensor], dim: int) -> Mapping[str, Tensor]:
    """y_i = self at i along dim            dL/dself = the g_i, side by side"""
    return {"self": torch.stack(tuple(g), dim)}


# --- picking a part by its place --------------------------------------------------------------------------------------


@rules.vjp(aten.slice.Tensor, linear_in=SELF)
def cut(
    g: Tensor, y: Tensor, self: Tensor, dim: int, start: int | None, end: int | None, step: int
) -> Mapping[str, Tensor]:
    """y = self[start:end:step] along dim   dL/dself = 0, g at [start:end:step]"""
    return {"self": torch.slice_scatter(g.new_zeros(self.shape), g, dim, start, end, step)}


@rules.vjp(aten.narrow.default, linear_in=SELF)
def narrow(g: Tensor, y: Tensor, self: Tensor, dim: int, start: int, length: int) -> Mapping[str, Tensor]:
    """y = self[start:start + length]       dL/dself = 0, g at [start:start + length]"""
    first = start % self.shape[dim] if start < 0 else start
    return {"self": torch.slice_scatter(g.new_zeros(self.shape), g, dim, first, first + length)}


@rules.vjp(aten.select.int, linear_in=SELF)
def select(g: Tensor, y: Tensor, self: Tensor, dim: int, index: int) -> Mapping[str, Tensor]:
    """y = self[index] along dim            dL/dself = 0, g at [index]"""
    return {"self": torch.select_scatter(g.new_zeros(self.shape), g, dim, index)}


@rules.vjp(aten.diagonal.default, linear_in=SELF)
def take_diagonal(g: Tensor, y: Tensor, self: Tensor, offset: int, dim1: int, dim2: int) -> Mapping[str, Tensor]:
    """y = a diagonal of self               dL/dself = 0, g on the diagonal"""
    return {"self": torch.diagonal_scatter(g.new_zeros(self.shape), g, offset, dim1, dim2)}


@rules.vjp(aten.diag_embed.default, linear_in=SELF)
def diag_embed(g: Tensor, y: Tensor, offset: int, dim1: int, dim2: int) -> Mapping[str, Tensor]:
    """y = 0, self on the diagonal          dL/dself = the diagonal of g"""
    return {"self": g.diagonal(offset, dim1, dim2)}


@rules.vjp(aten.tril.default, linear_in=SELF)
def tril(g: Tensor, y: Tensor, diagonal: int) -> Mapping[str, Tensor]:
    """y = self on and below the diagonal, else 0   dL/dself = g on and below the diagonal, else 0"""
    return {"self": g.tril(diagonal)}


@rules.vjp(aten.triu.default, linear_in=SELF)
def triu(g: Tensor, y: Tensor, diagonal: int) -> Mapping[str, Tensor]:
    """y = self on and above the diagonal, else 0   dL/dself = g on and above the diagonal, else 0"""
    return {"self": g.triu(diagonal)}


@rules.vjp(aten.slice_scatter.default, linear_in=("self", "src"))
def slice_scatter(
    g: Tensor, y: Tensor, src: Tensor, dim: int, start: int | None, end: int | None, step: int
) -> Mapping[str, Tensor]:
    """y = self, but src at [start:end:step]    dL/dself = g, 0 there       dL/dsrc = g there"""
    return {
        "self": torch.slice_scatter(g, torch.zeros_like(src), dim, start, end, step),
        "src": aten.slice.Tensor(g, dim, start, end, step),
    }


@rules.vjp(aten.select_scatter.default, linear_in=("self", "src"))
def select_scatter(g: Tensor, y: Tensor, src: Tensor, dim: int, index: int) -> Mapping[str, Tensor]:
    """y = self, but src at [index]         dL/dself = g, 0 there       dL/dsrc = g there"""
    return {"self": torch.select_scatter(g, torch.zeros_like(src), dim, index), "src": g.select(dim, index)}


@rules.vjp(aten.diagonal_scatter.default, linear_in=("self", "src"))
def diagonal_scatter(g: Tensor, y: Tensor, src: Tensor, offset: int, dim1: int, dim2: int) -> Mapping[str, Tensor]:
    """y = self, but src on the diagonal    dL/dself = g, 0 there       dL/dsrc = g there"""
    return {
        "self": torch.diagonal_scatter(g, torch.zeros_like(src), offset, dim1, dim2),
        "src": g.diagonal(offset, dim1, dim2),
    }
