"""Pooling: the largest or the mean of each window.

Max:   y_t = x at the place where the window t is largest; g goes back to that place.
Mean:  y_t = Σ x over the window t / its size; every entry of the window gets g_t / size.
Among equal entries of a window PyTorch's max takes the first.
Shapes: L places in, T places out, one for each dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.derivatives.convolution import each
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()

At = Mapping[str, Any]
Gradients = dict[str, Tensor]
MAX_WITH_INDICES = (
    aten.max_pool1d_with_indices.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)


# --- the largest ------------------------------------------------------------------------------------------------------


def back_to_place(g_T: Tensor, self_L: Tensor, indices_T: Tensor, dims: int) -> Tensor:
    """Σ of g over the windows that took an entry; indices count the places of all dims together."""
    dx = torch.zeros_like(self_L).flatten(-dims)
    return dx.scatter_add_(-1, indices_T.flatten(-dims), g_T.flatten(-dims)).reshape(self_L.shape)


def _taken(self_L: Tensor, indices_T: Tensor, dims: int) -> Tensor:
    return self_L.flatten(-dims).gather(-1, indices_T.flatten(-dims)).reshape(indices_T.shape)


def _ties(dims: int) -> Callable[..., Tensor]:
    """Windows in which more than one entry is the largest."""

    def ties(self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Tensor:
        y, _ = MAX_WITH_INDICES[dims - 1](self, kernel_size, stride, padding, dilation, ceil_mode)
        kernel, before, steps = (each(value, dims) for value in (kernel_size, padding, dilation))
        strides, reach = each(stride or kernel, dims), [s * (k - 1) + 1 for s, k in zip(steps, kernel, strict=True)]
        sides = []
        for d in reversed(range(dims)):  # far enough that every window is whole
            sides += [before[d], (y.shape[d - dims] - 1) * strides[d] + reach[d] - self.shape[d - dims] - before[d]]
        windows = F.pad(self, sides, value=-math.inf)
        for d in range(dims):
            windows = windows.unfold(self.dim() - dims + d, reach[d], strides[d])[..., :: steps[d]]
        among_equals: Tensor = (windows.flatten(-dims) == y.unsqueeze(-1)).sum(-1) > 1
        return among_equals

    return ties


def _max_frozen(dims: int) -> Callable[..., Tensor]:
    def frozen(at: At, self: Tensor, **window: Any) -> Tensor:
        return _taken(self, MAX_WITH_INDICES[dims - 1](at["self"], **window)[1], dims)

    return frozen


def _pair_frozen(dims: int) -> Callable[..., Any]:
    def frozen(at: At, self: Tensor) -> Any:
        return _taken(self, at["y"][1], dims), at["y"][1]

    return frozen


def _max_jvp(dims: int) -> Callable[..., Tensor]:
    def jvp(y: Tensor, t: Mapping[str, Tensor], self: Tensor, **window: Any) -> Tensor:
        return _taken(t["self"], MAX_WITH_INDICES[dims - 1](self, **window)[1], dims)

    return jvp


def _pair_jvp(dims: int) -> Callable[..., Any]:
    def jvp(y: Any, t: Mapping[str, Tensor]) -> Any:
        return _taken(t["self"], y[1], dims), torch.zeros_like(y[1])

    return jvp


def _max_bound(dims: int) -> Callable[..., Gradients]:
    def bound(g: Tensor, y: Tensor, self: Tensor, **window: Any) -> Gradients:
        return {"self": back_to_place(g.abs(), self, MAX_WITH_INDICES[dims - 1](self, **window)[1], dims)}

    return bound


def _max(dims: int) -> dict[str, Any]:
    return {"kink": _ties(dims), "frozen": _max_frozen(dims), "jvp": _max_jvp(dims), "abs_bound": _max_bound(dims)}


def _pair(dims: int) -> dict[str, Any]:
    return {"frozen": _pair_frozen(dims), "jvp": _pair_jvp(dims)}


@rules.vjp(aten.max_pool1d.default, **_max(1))
def max_pool1d(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Gradients:
    """y_t = max self_l over the window t            dL/dself_l = Σ g_t over the windows whose largest is l"""
    _, indices = aten.max_pool1d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode)
    return {"self": back_to_place(g, self, indices, 1)}


@rules.vjp(aten.max_pool2d.default, **_max(2))
def max_pool2d(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Gradients:
    """y_t = max self_l over the window t            dL/dself_l = Σ g_t over the windows whose largest is l"""
    _, indices = aten.max_pool2d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode)
    return {"self": back_to_place(g, self, indices, 2)}


@rules.vjp(aten.max_pool3d.default, **_max(3))
def max_pool3d(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Gradients:
    """y_t = max self_l over the window t            dL/dself_l = Σ g_t over the windows whose largest is l"""
    _, indices = aten.max_pool3d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode)
    return {"self": back_to_place(g, self, indices, 3)}


@rules.vjp(aten.max_pool1d_with_indices.default, kink=_ties(1), **_pair(1))
@rules.vjp(aten.adaptive_max_pool1d.default, **_pair(1))
def max_and_place1d(g: Any, y: Any, self: Tensor) -> Gradients:
    """y_t = max self_l over the window t, and l            dL/dself_l = Σ g_t over the windows whose largest is l"""
    return {"self": back_to_place(g[0], self, y[1], 1)}


@rules.vjp(aten.max_pool2d_with_indices.default, kink=_ties(2), **_pair(2))
@rules.vjp(aten.adaptive_max_pool2d.default, **_pair(2))
def max_and_place2d(g: Any, y: Any, self: Tensor) -> Gradients:
    """y_t = max self_l over the window t, and l            dL/dself_l = Σ g_t over the windows whose largest is l"""
    return {"self": back_to_place(g[0], self, y[1], 2)}


@rules.vjp(aten.max_pool3d_with_indices.default, kink=_ties(3), **_pair(3))
@rules.vjp(aten.adaptive_max_pool3d.default, **_pair(3))
def max_and_place3d(g: Any, y: Any, self: Tensor) -> Gradients:
    """y_t = max self_l over the window t, and l            dL/dself_l = Σ g_t over the windows whose largest is l"""
    return {"self": back_to_place(g[0], self, y[1], 3)}


# --- the mean ---------------------------------------------------------------------------------------------------------


def window_sizes(size: int, count: int, kernel: int, stride: int, padding: int, count_include_pad: bool) -> Tensor:
    """How many entries each window along one dimension counts; a last window may reach beyond the padding."""
    start = torch.arange(count) * stride - padding
    end = (start + kernel).clamp(max=size + padding)
    return end - start if count_include_pad else end.clamp(max=size) - start.clamp(min=0)


def spread_over_windows(
    g: Tensor, self: Tensor, kernel: list[int], stride: list[int], padding: list[int], sizes: Tensor
) -> Tensor:
    """Σ over the windows t that hold an entry of g_t / size_t: g transposed-convolved with ones."""
    dims = len(kernel)
    share = (g / sizes).reshape(-1, 1, *g.shape[-dims:])
    spatial = zip(g.shape[-dims:], stride, padding, kernel, strict=True)
    reached = [(t - 1) * s - 2 * p + k for t, s, p, k in spatial]
    missed = [max(size - got, 0) for size, got in zip(self.shape[-dims:], reached, strict=True)]
    ones = torch.ones([1, 1, *kernel], dtype=g.dtype, device=g.device)
    dx = torch.convolution(share, ones, None, stride, padding, [1] * dims, True, missed, 1)
    for d in range(dims):
        dx = dx.narrow(d + 2, 0, self.shape[d - dims])
    return dx.reshape(self.shape)


def through_mean(
    g: Tensor, self: Tensor, dims: int, kernel_size: Any, stride: Any, padding: Any, include: bool, divisor: int | None
) -> Gradients:
    """The gradient of an average over windows of `dims` dimensions."""
    kernel, before = each(kernel_size, dims), each(padding, dims)
    strides = each(stride, dims) if stride else kernel
    sizes = torch.ones([1] * dims, dtype=g.dtype)
    for d in range(dims):
        axis = window_sizes(self.shape[d - dims], g.shape[d - dims], kernel[d], strides[d], before[d], include)
        sizes = sizes * axis.reshape([-1 if other == d else 1 for other in range(dims)])
    sizes = (sizes if divisor is None else torch.full_like(sizes, divisor)).to(g.device)
    return {"self": spread_over_windows(g, self, kernel, strides, before, sizes)}


@rules.vjp(aten.avg_pool1d.default, linear_in=("self",))
def avg_pool1d(
    g: Tensor, y: Tensor, self: Tensor, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool
) -> Gradients:
    """y_t = Σ self_l / n_t over the window t            dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_mean(g, self, 1, kernel_size, stride, padding, count_include_pad, None)


@rules.vjp(aten.avg_pool2d.default, linear_in=("self",))
def avg_pool2d(
    g: Tensor,
    y: Tensor,
    self: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Gradients:
    """y_t = Σ self_l / n_t over the window t            dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_mean(g, self, 2, kernel_size, stride, padding, count_include_pad, divisor_override)


@rules.vjp(aten.avg_pool3d.default, linear_in=("self",))
def avg_pool3d(
    g: Tensor,
    y: Tensor,
    self: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Gradients:
    """y_t = Σ self_l / n_t over the window t            dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_mean(g, self, 3, kernel_size, stride, padding, count_include_pad, divisor_override)


def mean_matrix(size: int, count: int, like: Tensor) -> Tensor:
    """M with y = M x: row t averages the entries from ⌊t L/T⌋ to ⌈(t + 1) L/T⌉."""
    t, place = torch.arange(count, device=like.device).unsqueeze(1), torch.arange(size, device=like.device)
    inside = (place >= t * size // count) & (place < -(-(t + 1) * size // count))
    return inside.to(like.dtype) / inside.sum(1, keepdim=True)


def through_adaptive_mean(g: Tensor, self: Tensor, dims: int) -> Gradients:
    """The windows split each dimension evenly, so the adjoint goes one dimension at a time: g ← g M."""
    for d in range(-dims, 0):
        g = (g.movedim(d, -1) @ mean_matrix(self.shape[d], g.shape[d], g)).movedim(-1, d)
    return {"self": g}


@rules.vjp(aten.adaptive_avg_pool1d.default, linear_in=("self",))
def adaptive_avg_pool1d(g: Tensor, y: Tensor, self: Tensor) -> Gradients:
    """y_t = mean self_l over t L/T ≤ l < (t + 1) L/T        dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_adaptive_mean(g, self, 1)


@rules.vjp(aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, linear_in=("self",))
def adaptive_avg_pool2d(g: Tensor, y: Tensor, self: Tensor) -> Gradients:
    """y_t = mean self_l over t L/T ≤ l < (t + 1) L/T        dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_adaptive_mean(g, self, 2)


@rules.vjp(aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default, linear_in=("self",))
def adaptive_avg_pool3d(g: Tensor, y: Tensor, self: Tensor) -> Gradients:
    """y_t = mean self_l over t L/T ≤ l < (t + 1) L/T        dL/dself_l = Σ g_t / n_t over the windows that hold l"""
    return through_adaptive_mean(g, self, 3)
