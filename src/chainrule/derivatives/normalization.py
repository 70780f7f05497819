"""Normalisation: layer, RMS, group, instance and batch norm.

They differ only in the entries over which a mean and a variance are taken. With  x̂ = r (x − μ),  r = 1/√(σ² + ε)  and
y = x̂·w + b,  a step in x moves μ and r too, so that of ĝ = g·w only the part orthogonal to 1 and to x̂ survives:

    dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂))          dL/dw = Σ g·x̂          dL/db = Σ g

The Jacobian r (I − 11ᵀ/n − x̂x̂ᵀ/n) is symmetric, so forward mode is the same formula. RMS norm takes no mean off: there
the middle term is missing. With stored statistics (evaluation) both are missing.
Ioffe & Szegedy 2015 (batch norm, section 3); Ba, Kiros & Hinton 2016 (layer norm); Wu & He 2018 (group norm); Zhang &
Sennrich 2019 (RMS norm).
Shapes: N batch, C channels, G groups, S all places of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.rule import Rules, call_by_name

aten = torch.ops.aten
rules = Rules()

Dims: TypeAlias = tuple[int, ...]
# How an op lays out its tensors: the shape in which mean and variance run over whole dimensions, those dimensions, the
# shape of weight and bias beside it, and mean and variance where they are given and do not move with x.
Layout: TypeAlias = tuple[Dims, Dims, Dims, tuple[Tensor, Tensor] | None]
RUNNING = ("running_mean", "running_var")


# --- the one formula --------------------------------------------------------------------------------------------------


def standardize(x: Tensor, dims: Dims, eps: float) -> tuple[Tensor, Tensor]:
    """x̂ and r, with σ² = ‖x − μ‖²/n: by the norm, since the squares of all entries would need memory of their own."""
    centred, n = x - x.mean(dims, keepdim=True), math.prod(x.shape[d] for d in dims)
    variance = torch.linalg.vector_norm(centred, dim=dims, keepdim=True).square_().div_(max(n, 1))
    r = (variance + eps).rsqrt()
    return centred.mul_(r), r


def project(gx: Tensor, xhat: Tensor, r: Tensor, dims: Dims) -> Tensor:
    """r (ĝ − mean ĝ − x̂·mean(ĝ x̂)): vjp and jvp of x -> x̂."""
    slope = (gx * xhat).mean(dims, keepdim=True)
    return (gx - gx.mean(dims, keepdim=True)).addcmul_(xhat, slope, value=-1).mul_(r)


def times(x: Tensor, weight: Tensor | None) -> Tensor:
    """x·w, or x where there is no weight."""
    return x if weight is None else x * weight


def standardize_by(stored: tuple[Tensor, Tensor], x: Tensor, shape: Dims, eps: float) -> tuple[Tensor, Tensor]:
    """x̂ and r by a given mean and variance."""
    r = (stored[1].reshape(shape) + eps).rsqrt()
    return (x - stored[0].reshape(shape)) * r, r


def through_norm(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, layout: Layout
) -> dict[str, Tensor]:
    """The gradients of x, w and b in the layout of an op."""
    view, dims, weight_view, stored = layout
    g, ghat = g.reshape(view), times(g.reshape(view), None if weight is None else weight.reshape(weight_view))
    if stored is None:
        xhat, r = standardize(x.reshape(view), dims, eps)
        dx = project(ghat, xhat, r, dims)
    else:
        xhat, r = standardize_by(stored, x.reshape(view), weight_view, eps)
        dx = ghat * r
    return {"input": dx.reshape(x.shape), **through_affine(g, xhat, weight, bias, weight_view)}


def through_affine(
    g: Tensor, xhat: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Dims
) -> dict[str, Tensor]:
    """dL/dw = Σ g·x̂ and dL/db = Σ g, for those that the op has."""
    gradients = {}
    if weight is not None:
        gradients["weight"] = (g * xhat).sum_to_size(shape).reshape(weight.shape)
    if bias is not None:
        gradients["bias"] = g.sum_to_size(shape).reshape(bias.shape)
    return gradients


# --- rounding and forward mode follow from the layout -----------------------------------------------------------------


def _from(layout_of: Callable[..., Layout]) -> dict[str, Any]:
    """What a rule declares beside its vjp, out of the op's layout."""
    return {"abs_bound": _bound(layout_of), "jvp": _jvp(layout_of), "linear_in": ("weight", "bias")}


def _bound(layout_of: Callable[..., Layout]) -> Callable[..., Mapping[str, Any]]:
    """How the terms of a gradient, each taken absolutely, are rounded.

    x − μ cancels where the mean is large, so x̂ is rounded in units of `size` = r (|x| + |μ|), all of a row alike as far
    as μ is. A sum is rounded like √Σ(term)², since rounding errors do not conspire.
    """

    def bound(g: Any, y: Any, **arguments: Any) -> Mapping[str, Any]:
        layout, x, weight = call_by_name(layout_of, arguments), arguments["input"], arguments["weight"]
        view, dims, shape, stored = layout
        xhat, r = _standardized(x, arguments["eps"], layout)
        g = (g[0] if isinstance(g, tuple) else g).reshape(view)
        shift = (x.reshape(view) - xhat / r).abs() * r
        size, gx = xhat.abs() + 2 * shift, times(g, None if weight is None else weight.reshape(shape))
        dx = gx.abs()
        if stored is None:
            means, rounding = zip(*(_mean(part, dims) for part in (gx, gx * xhat, gx * size)), strict=True)
            dx = dx + means[0] + rounding[0] + size * (means[1] + rounding[1])
            dx = dx + xhat.abs() * (shift * means[0] + rounding[2])
        total = through_affine(g, xhat, weight, arguments["bias"], shape)
        squares = through_affine(g.square(), size.square(), weight, arguments["bias"], shape)
        of_affine = {name: total[name].abs() + squares[name].sqrt() for name in total}
        return {"input": (dx * r).reshape(x.shape), **of_affine}

    return bound


def _mean(x: Tensor, dims: Dims) -> tuple[Tensor, Tensor]:
    """|mean| and the size of its rounding, √(mean x² / n)."""
    n = math.prod(x.shape[d] for d in dims)
    return x.mean(dims, keepdim=True).abs(), (x.square().mean(dims, keepdim=True) / max(n, 1)).sqrt()


def _jvp(layout_of: Callable[..., Layout]) -> Callable[..., Any]:
    """ẏ = w·r (ẋ − mean ẋ − x̂·mean(ẋ x̂)) + ẇ·x̂ + ḃ."""

    def jvp(y: Any, t: Mapping[str, Tensor], **arguments: Any) -> Any:
        layout, x, weight = call_by_name(layout_of, arguments), arguments["input"], arguments["weight"]
        view, dims, shape, stored = layout
        xhat, r = _standardized(x, arguments["eps"], layout)
        moved = torch.zeros_like(xhat)
        if "input" in t:
            dx = t["input"].reshape(view)
            dx = project(dx, xhat, r, dims) if stored is None else dx * r
            moved += times(dx, None if weight is None else weight.reshape(shape))
        moved += sum(t[name].reshape(shape) * factor for name, factor in (("weight", xhat), ("bias", 1)) if name in t)
        moved = moved.reshape(x.shape)
        return (moved, *map(torch.zeros_like, y[1:])) if isinstance(y, tuple) else moved

    return jvp


def _standardized(x: Tensor, eps: float, layout: Layout) -> tuple[Tensor, Tensor]:
    view, dims, shape, stored = layout
    x = x.reshape(view)
    return standardize(x, dims, eps) if stored is None else standardize_by(stored, x, shape, eps)


def _holding_statistics(op: OpOverload) -> Callable[..., Any]:
    """μ, r and running statistics as outputs carry no gradient, so numerical differences hold them too."""
    return lambda at, **arguments: (op(**arguments)[0], *at["y"][1:])


# --- layer norm and RMS norm: over the last dimensions ----------------------------------------------------------------


def _over_last(input: Tensor, normalized_shape: Sequence[int]) -> Layout:
    n = math.prod(normalized_shape)
    return (math.prod(input.shape[: input.ndim - len(normalized_shape)]), n), (1,), (n,), None


def last(normalized_shape: Sequence[int]) -> Dims:
    """The dimensions that a layer norm runs over."""
    return tuple(range(-len(normalized_shape), 0))


@rules.vjp(aten.layer_norm.default, **_from(_over_last))
def layer_norm(
    g: Tensor, y: Tensor, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float
) -> dict[str, Tensor]:
    """y = x̂·w + b        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w        dL/dw = Σ g·x̂        dL/db = Σ g"""
    dims = last(normalized_shape)
    xhat, r = standardize(input, dims, eps)
    return {"input": project(times(g, weight), xhat, r, dims), "weight": g * xhat, "bias": g}


@rules.vjp(
    aten.native_layer_norm.default, frozen=_holding_statistics(aten.native_layer_norm.default), **_from(_over_last)
)
def native_layer_norm(
    g: Any, y: Any, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float
) -> dict[str, Tensor]:
    """y, μ, r: as layer_norm        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w"""
    return layer_norm(g[0], y[0], input, normalized_shape, weight, eps)


def inverse_rms(x: Tensor, dims: Dims, eps: float | None) -> Tensor:
    """r = 1/√(mean x² + ε). Half precision computes in float32 and takes its ε from there, if none is given."""
    if eps is None:
        eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    return (x.square().mean(dims, keepdim=True) + eps).rsqrt()


def _rms_norm_bound(
    g: Tensor, y: Tensor, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> dict[str, Tensor]:
    dims = last(normalized_shape)
    r = inverse_rms(input, dims, eps)
    xhat, gx = input * r, times(g, weight)
    mean, rounding = _mean(gx * xhat, dims)
    return {"input": (gx.abs() + xhat.abs() * (mean + rounding)) * r, "weight": (g * xhat).abs()}


def _rms_norm_jvp(
    y: Tensor, t: Mapping[str, Tensor], input: Tensor, normalized_shape: Sequence[int], weight: Any, eps: float | None
) -> Tensor:
    moved = torch.zeros_like(input)
    if "input" in t:  # the Jacobian of x -> x̂ is symmetric
        moved += times(rms_norm(t["input"], y, input, normalized_shape, None, eps)["input"], weight)
    if "weight" in t:
        moved += t["weight"] * input * inverse_rms(input, last(normalized_shape), eps)
    return moved


@rules.vjp(aten.rms_norm.default, abs_bound=_rms_norm_bound, jvp=_rms_norm_jvp, linear_in=("weight",))
def rms_norm(
    g: Tensor, y: Tensor, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> dict[str, Tensor]:
    """y = x̂·w,  x̂ = r x,  r = 1/√(mean x² + ε)        dL/dx = r (ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w        dL/dw = Σ g·x̂"""
    dims = last(normalized_shape)
    r = inverse_rms(input, dims, eps)
    xhat, ghat = input * r, times(g, weight)
    return {"input": (ghat - xhat * (ghat * xhat).mean(dims, keepdim=True)).mul_(r), "weight": g * xhat}


# --- group, instance and batch norm: over channels and places ---------------------------------------------------------


def over_groups(input: Tensor, num_groups: int) -> Layout:
    """One mean per example and group of channels."""
    n, c = input.shape[:2]
    return (n, num_groups, c // num_groups, math.prod(input.shape[2:])), (2, 3), (num_groups, c // num_groups, 1), None


@rules.vjp(aten.group_norm.default, **_from(over_groups))
def group_norm(g: Tensor, y: Tensor, input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float) -> Any:
    """y = x̂·w + b, x̂ over each group of channels        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w"""
    return through_norm(g, input, weight, bias, eps, over_groups(input, num_groups))


def over_places(input: Tensor, running_mean: Any, running_var: Any, use_input_stats: bool) -> Layout:
    """One mean per example and channel, or the stored ones."""
    n, c = input.shape[:2]
    stored = None if use_input_stats else (running_mean, running_var)
    return (n, c, math.prod(input.shape[2:])), (2,), (c, 1), stored


@rules.vjp(aten.instance_norm.default, nondiff=RUNNING, **_from(over_places))
def instance_norm(
    g: Tensor,
    y: Tensor,
    input: Tensor,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    eps: float,
) -> dict[str, Tensor]:
    """y = x̂·w + b, x̂ over the places of each channel        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w"""
    return through_norm(g, input, weight, bias, eps, over_places(input, running_mean, running_var, use_input_stats))


def over_batch(input: Tensor, running_mean: Any, running_var: Any, training: bool) -> Layout:
    """One mean per channel, or the stored ones."""
    n, c = (*input.shape, 0)[:2]  # PyTorch takes an empty batch of shape (0,) too
    stored = None if training else (running_mean, running_var)
    return (n, c, math.prod(input.shape[2:])), (0, 2), (c, 1), stored


@rules.vjp(aten.batch_norm.default, nondiff=RUNNING, **_from(over_batch))
def batch_norm(
    g: Tensor,
    y: Tensor,
    input: Tensor,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    eps: float,
) -> dict[str, Tensor]:
    """y = x̂·w + b, x̂ over batch and places        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w"""
    return through_norm(g, input, weight, bias, eps, over_batch(input, running_mean, running_var, training))


def native_batch_norm(
    g: Any,
    y: Any,
    input: Tensor,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    eps: float,
) -> dict[str, Tensor]:
    """y, μ, r, ..: as batch_norm        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w; r ĝ in evaluation"""
    return through_norm(g[0], input, weight, bias, eps, over_batch(input, running_mean, running_var, training))


for _op in (
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_functional.default,
):
    rules.vjp(_op, nondiff=RUNNING, frozen=_holding_statistics(_op), **_from(over_batch))(native_batch_norm)


def over_this_batch(input: Tensor) -> Layout:
    """One mean per channel."""
    return over_batch(input, None, None, True)


@rules.vjp(
    aten._native_batch_norm_legit.no_stats,
    frozen=_holding_statistics(aten._native_batch_norm_legit.no_stats),
    **_from(over_this_batch),
)
def batch_norm_without_stored(g: Any, y: Any, input: Tensor, weight: Any, bias: Any, eps: float) -> dict[str, Tensor]:
    """y, μ, r: as batch_norm        dL/dx = r (ĝ − mean ĝ − x̂·mean(ĝ x̂)),  ĝ = g·w"""
    return through_norm(g[0], input, weight, bias, eps, over_this_batch(input))


def by_stored(input: Tensor, running_mean: Tensor, running_var: Tensor) -> Layout:
    """The stored mean and variance per channel."""
    return over_batch(input, running_mean, running_var, False)


@rules.vjp(
    aten._native_batch_norm_legit_no_training.default,
    nondiff=RUNNING,
    frozen=_holding_statistics(aten._native_batch_norm_legit_no_training.default),
    **_from(by_stored),
)
def batch_norm_in_evaluation(
    g: Any, y: Any, input: Tensor, weight: Any, bias: Any, running_mean: Tensor, running_var: Tensor, eps: float
) -> dict[str, Tensor]:
    """y = (x − running_mean) r·w + b        dL/dx = r·g·w        dL/dw = Σ g·x̂        dL/db = Σ g"""
    return through_norm(g[0], input, weight, bias, eps, by_stored(input, running_mean, running_var))
