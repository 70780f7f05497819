"""Resampling: interpolation to another size, and the moves between patches, columns and channels.

Interpolation is linear and goes one dimension at a time: y_t = Σ_k w_tk x[i_tk], with the places i and weights w of
the kernel's taps. Hence dL/dx = Σ_k w_tk g_t, added up at i_tk: the same taps, the other way. The moves are
permutations, or copies (`im2col`) whose adjoint is the sum of the copies (`col2im`). Cubic kernel: Keys 1981, with
a = −0.75.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()


# --- taps: the places that an output mixes, and their weights ---------------------------------------------------------


def source_places(size: int, count: int, scale: float | None, align_corners: bool, like: Tensor) -> Tensor:
    """Where output t lies on the input's axis; half precision cannot count that far."""
    t = torch.arange(count, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    if align_corners:
        return t * ((size - 1) / (count - 1) if count > 1 else 0.0)
    return (t + 0.5) * (1 / scale if scale else size / count) - 0.5


def linear_taps(size: int, count: int, scale: float | None, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """The two neighbours, weighted by how near they are."""
    place = source_places(size, count, scale, align_corners, like).clamp(min=0)
    left = place.long().clamp(max=size - 1)
    part = (place - left).clamp(0, 1)
    return torch.stack([left, (left + 1).clamp(max=size - 1)]), torch.stack([1 - part, part])


def cubic_taps(size: int, count: int, scale: float | None, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """The four neighbours; at distance d < 1: (a+2)d³ − (a+3)d² + 1, at d < 2: a(d³ − 5d² + 8d − 4), a = −0.75."""
    place = source_places(size, count, scale, align_corners, like)
    taps = torch.stack([place.floor().long() + k for k in (-1, 0, 1, 2)])
    d = (place - taps).abs()
    weights = torch.where(d <= 1, (1.25 * d - 2.25) * d.square() + 1, -0.75 * (((d - 5) * d + 8) * d - 4))
    return taps.clamp(0, size - 1), weights


def nearest_taps(size: int, count: int, scale: float | None, exact: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """The place that the op itself takes: it resamples the row 0, 1, 2, .."""
    row = torch.arange(size, dtype=torch.float64, device=like.device).reshape(1, 1, size)
    resample = aten._upsample_nearest_exact1d.default if exact else aten.upsample_nearest1d.default
    taps = resample(row, [count], scale).reshape(1, count).long()
    return taps, torch.ones_like(taps)


def back_through_taps(g: Tensor, size: int, dim: int, taps: Tensor, weights: Tensor) -> Tensor:
    """Σ_k w_tk g_t, added up at the places i_tk."""
    dx = g.new_zeros([size if d == dim else g.shape[d] for d in range(g.dim())])
    column = [-1 if d == dim else 1 for d in range(g.dim())]
    for places, weight in zip(taps, weights.to(g.dtype), strict=True):
        dx.index_add_(dim, places, g * weight.reshape(column))
    return dx


def through_interpolation(g: Tensor, x: Tensor, scales: Any, choice: bool, taps_of: Any) -> Tensor:
    """One dimension after the other; `choice` is align_corners, or for the nearest whether it is exact."""
    for d in range(2, x.dim()):
        taps, weights = taps_of(x.shape[d], g.shape[d], scales[d - 2] if scales else None, choice, g)
        g = back_through_taps(g, x.shape[d], d, taps, weights)
    return g


# --- interpolation ----------------------------------------------------------------------------------------------------


@rules.vjp(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec, linear_in=("input",))
def upsample_nearest(g: Tensor, y: Tensor, input: Tensor, scale_factors: Any) -> dict[str, Tensor]:
    """y_t = x[i_t],  i_t = ⌊t L/T⌋            dL/dx_i = Σ g_t over the t that took i"""
    return {"input": through_interpolation(g, input, scale_factors, False, nearest_taps)}


@rules.vjp(aten.upsample_nearest2d.default, linear_in=("self",))
def upsample_nearest2d(g: Tensor, y: Tensor, self: Tensor, scales_h: Any, scales_w: Any) -> dict[str, Tensor]:
    """y_t = x[i_t],  i_t = ⌊t L/T⌋            dL/dx_i = Σ g_t over the t that took i"""
    return {"self": through_interpolation(g, self, (scales_h, scales_w), False, nearest_taps)}


@rules.vjp(
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
    linear_in=("input",),
)
def upsample_nearest_exact(g: Tensor, y: Tensor, input: Tensor, scale_factors: Any) -> dict[str, Tensor]:
    """y_t = x[i_t],  i_t = ⌊(t + ½) L/T⌋            dL/dx_i = Σ g_t over the t that took i"""
    return {"input": through_interpolation(g, input, scale_factors, True, nearest_taps)}


@rules.vjp(
    aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec, linear_in=("input",)
)
def upsample_linear(g: Tensor, y: Tensor, input: Tensor, align_corners: bool, scale_factors: Any) -> dict[str, Tensor]:
    """y_t = (1 − w_t) x[i_t] + w_t x[i_t + 1]            dL/dx = g, by the same weights, at i_t and i_t + 1"""
    return {"input": through_interpolation(g, input, scale_factors, align_corners, linear_taps)}


@rules.vjp(aten.upsample_bilinear2d.default, linear_in=("self",))
def upsample_bilinear2d(
    g: Tensor, y: Tensor, self: Tensor, align_corners: bool, scales_h: Any, scales_w: Any
) -> dict[str, Tensor]:
    """y_t = (1 − w_t) x[i_t] + w_t x[i_t + 1]            dL/dx = g, by the same weights, at i_t and i_t + 1"""
    return {"self": through_interpolation(g, self, (scales_h, scales_w), align_corners, linear_taps)}


def _bicubic_bound(g: Tensor, y: Tensor, input: Tensor, align_corners: bool, scale_factors: Any) -> dict[str, Tensor]:
    return {"input": through_interpolation(g.abs(), input, scale_factors, align_corners, _sized_cubic_taps)}


def _sized_cubic_taps(*where: Any) -> tuple[Tensor, Tensor]:
    taps, weights = cubic_taps(*where)
    return taps, weights.abs()


@rules.vjp(aten.upsample_bicubic2d.vec, linear_in=("input",), abs_bound=_bicubic_bound)
def upsample_bicubic(g: Tensor, y: Tensor, input: Tensor, align_corners: bool, scale_factors: Any) -> dict[str, Tensor]:
    """y_t = Σ_k w_tk x[i_t + k],  k = −1 .. 2            dL/dx_i = Σ w_tk g_t over i_t + k = i"""
    return {"input": through_interpolation(g, input, scale_factors, align_corners, cubic_taps)}


# --- moves ------------------------------------------------------------------------------------------------------------


@rules.vjp(aten.pixel_shuffle.default, linear_in=("self",))
def pixel_shuffle(g: Tensor, y: Tensor, self: Tensor, upscale_factor: int) -> dict[str, Tensor]:
    """y = self, channels moved to places            dL/dself = g, places moved back to channels"""
    return {"self": torch.pixel_unshuffle(g, upscale_factor)}


@rules.vjp(aten.pixel_unshuffle.default, linear_in=("self",))
def pixel_unshuffle(g: Tensor, y: Tensor, self: Tensor, downscale_factor: int) -> dict[str, Tensor]:
    """y = self, places moved to channels            dL/dself = g, channels moved back to places"""
    return {"self": torch.pixel_shuffle(g, downscale_factor)}


@rules.vjp(aten.channel_shuffle.default, linear_in=("self",))
def channel_shuffle(g: Tensor, y: Tensor, self: Tensor, groups: int) -> dict[str, Tensor]:
    """y = self, channels dealt out over the groups            dL/dself = g, dealt back"""
    return {"self": torch.channel_shuffle(g, self.shape[1] // groups)}


@rules.vjp(aten.im2col.default, linear_in=("self",))
def im2col(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> dict[str, Tensor]:
    """y = the patches of self as columns            dL/dself = Σ of g over the patches that hold an entry"""
    return {"self": aten.col2im(g, list(self.shape[-2:]), kernel_size, dilation, padding, stride)}


@rules.vjp(aten.col2im.default, linear_in=("self",))
def col2im(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> dict[str, Tensor]:
    """y = Σ of the columns of self, each at its patch            dL/dself = the patches of g as columns"""
    return {"self": aten.im2col(g, kernel_size, dilation, padding, stride)}
