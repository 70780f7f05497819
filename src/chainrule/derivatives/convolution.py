"""Convolution and transposed convolution in any number of dimensions.

    y[n,o,t] = b[o] + Σ_{c,k} w[o,c,k] x[n,c, s t + d k − p]        stride s, dilation d, padding p

    dL/dx = g *ᵀ w (transposed)        dL/dw[o,c,k] = Σ_nt g[n,o,t] x[n,c, s t + d k − p]        dL/db = Σ_nt g

A transposed convolution is the first of these, so its own gradients are the other way round: dL/dx = g convolved with
w, and in dL/dw x and g change places. Dumoulin & Visin 2016 (arXiv 1603.07285), chapter 4.
Shapes: N batch, G groups, C channels in, O channels out, T places out, one for each of the dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.derivatives.rule import Rules, call_by_name

aten = torch.ops.aten
rules = Rules()

LINEAR = ("input", "weight", "bias")


def sized(rule: Callable[..., dict[str, Tensor]]) -> dict[str, Any]:
    """`linear_in` and `abs_bound` of a sum of products: |sum| + √Σ(product)², since rounding errors do not conspire."""

    def bound(g: Tensor, y: Tensor, **arguments: Any) -> dict[str, Tensor]:
        squares = {n: a.square() if isinstance(a, Tensor) else a for n, a in arguments.items()}
        pairs = zip(
            call_by_name(rule, arguments, g, y).items(),
            call_by_name(rule, squares, g.square(), y).values(),
            strict=True,
        )
        return {name: total.abs() + square.clamp(min=0).sqrt() for (name, total), square in pairs}

    return {"linear_in": LINEAR, "abs_bound": bound}


# --- the two sums -----------------------------------------------------------------------------------------------------


def each(value: Any, count: int) -> list[int]:
    """One number per dimension; PyTorch takes one for all."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * count if len(numbers) == 1 else numbers


def correlate(
    wide_NCT: Tensor, narrow_NOT: Tensor, kernel: Any, stride: Any, pads: Any, dilation: Any, groups: int
) -> Tensor:
    """Σ_{n,t} narrow[n,o,t] wide[n,c, s t + d k − p] for every o, c and k.

    This is a convolution too: of wide with narrow as its kernel. The batch is what is summed over, so it takes the place of
    the channels; k moves by d and t by s, so stride and dilation change places.
    """
    if not len(wide_NCT):
        return wide_NCT.new_zeros(narrow_NOT.shape[1], wide_NCT.shape[1] // groups, *kernel)
    beyond = [side for before, after in reversed(pads) for side in (0, after - before)]
    wide_CGNT = torch.unflatten(F.pad(wide_NCT, beyond), 1, (groups, -1)).transpose(0, 2)
    before, none = [pair[0] for pair in pads], [0] * len(pads)
    found_COK = torch.convolution(
        wide_CGNT.flatten(1, 2), narrow_NOT.transpose(0, 1), None, dilation, before, stride, False, none, groups
    )
    for d, size in enumerate(kernel):
        found_COK = found_COK.narrow(d + 2, 0, size)
    return found_COK.transpose(0, 1)


def spread(g: Tensor, weight: Tensor, size: Any, stride: Any, pads: Any, dilation: Any, groups: int) -> Tensor:
    """g transposed-convolved with w: each g[n,o,t] w[o,c,k] goes back to the place s t + d k − p that it came from."""
    before = [pair[0] for pair in pads]
    wanted = [x + right - left for x, (left, right) in zip(size, pads, strict=True)]
    reached = [
        (t - 1) * s - 2 * p + d * (k - 1) + 1
        for t, s, p, d, k in zip(g.shape[2:], stride, before, dilation, weight.shape[2:], strict=True)
    ]
    missed = [x - got for x, got in zip(wanted, reached, strict=True)]  # places that no window reaches
    dx = torch.convolution(g, weight, None, stride, before, dilation, True, missed, groups)
    for d, x in enumerate(size):
        dx = dx.narrow(d + 2, 0, x)
    return dx


# --- convolution ------------------------------------------------------------------------------------------------------


def through_convolution(
    g: Tensor, input: Tensor, weight: Tensor, stride: Any, pads: Any, dilation: Any, groups: int
) -> dict[str, Tensor]:
    """Gradients of y = w * x + b, with or without a batch; pads are (before, after) of each dimension."""
    kernel = weight.shape[2:]
    stride, dilation = each(stride, len(kernel)), each(dilation, len(kernel))
    x_NCT, g_NOT = (t if t.dim() == weight.dim() else t.unsqueeze(0) for t in (input, g))
    dx_NCT = spread(g_NOT, weight, x_NCT.shape[2:], stride, pads, dilation, groups)
    return {
        "input": dx_NCT.reshape(input.shape),
        "weight": correlate(x_NCT, g_NOT, kernel, stride, pads, dilation, groups),
        "bias": g_NOT.sum([0, *range(2, g_NOT.dim())]),
    }


def same_on_both_sides(padding: Any, count: int) -> list[tuple[int, int]]:
    """(before, after) of each dimension."""
    return [(p, p) for p in each(padding, count)]


def convolution(
    g: Tensor, y: Tensor, input: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> dict[str, Tensor]:
    """y = w * x + b      dL/dx = g *ᵀ w      dL/dw[o,c,k] = Σ_nt g[n,o,t] x[n,c, s t + d k − p]      dL/db = Σ_nt g"""
    pads = same_on_both_sides(padding, weight.dim() - 2)
    return through_convolution(g, input, weight, stride, pads, dilation, groups)


rules.vjp(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, **sized(convolution))(convolution)


def named_padding(padding: str, weight: Tensor, dilation: Any) -> list[tuple[int, int]]:
    """(before, after) of each dimension: none, or such that y is as large as x; the odd one comes after."""
    kernel = weight.shape[2:]
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    totals = [d * (k - 1) for d, k in zip(each(dilation, len(kernel)), kernel, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def convolution_with_named_padding(
    g: Tensor, y: Tensor, input: Tensor, weight: Tensor, stride: Any, padding: str, dilation: Any, groups: int
) -> dict[str, Tensor]:
    """y = w * x + b      dL/dx = g *ᵀ w      dL/dw[o,c,k] = Σ_nt g[n,o,t] x[n,c, s t + d k − p]      dL/db = Σ_nt g"""
    return through_convolution(g, input, weight, stride, named_padding(padding, weight, dilation), dilation, groups)


rules.vjp(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding, **sized(convolution_with_named_padding))(
    convolution_with_named_padding
)


# --- transposed convolution -------------------------------------------------------------------------------------------


def transposed_convolution(
    g: Tensor, y: Tensor, input: Tensor, weight: Tensor, stride: Any, padding: Any, groups: int, dilation: Any
) -> dict[str, Tensor]:
    """y = w *ᵀ x + b      dL/dx = g * w      dL/dw[c,o,k] = Σ_nt x[n,c,t] g[n,o, s t + d k − p]      dL/db = Σ_nt g"""
    kernel = weight.shape[2:]
    stride, padding, dilation = (each(value, len(kernel)) for value in (stride, padding, dilation))
    x_NCT, g_NOT = (t if t.dim() == weight.dim() else t.unsqueeze(0) for t in (input, g))
    dx_NCT = torch.convolution(g_NOT, weight, None, stride, padding, dilation, False, [0] * len(kernel), groups)
    for d, size in enumerate(x_NCT.shape[2:]):
        dx_NCT = dx_NCT.narrow(d + 2, 0, size)
    pads = same_on_both_sides(padding, len(kernel))
    return {
        "input": dx_NCT.reshape(input.shape),
        "weight": correlate(g_NOT, x_NCT, kernel, stride, pads, dilation, groups),
        "bias": g_NOT.sum([0, *range(2, g_NOT.dim())]),
    }


rules.vjp(
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    **sized(transposed_convolution),
)(transposed_convolution)


def any_convolution(
    g: Tensor,
    y: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    groups: int,
) -> dict[str, Tensor]:
    """y = w * x + b, or w *ᵀ x + b        dL/dx = g *ᵀ w, or g * w        dL/dw = Σ_nt g x        dL/db = Σ_nt g"""
    if transposed:
        return transposed_convolution(g, y, input, weight, stride, padding, groups, dilation)
    return convolution(g, y, input, weight, stride, padding, dilation, groups)


rules.vjp(aten.convolution.default, **sized(any_convolution))(any_convolution)
