"""Ops written out in plain torch, because torch.vmap has no batching rule for them or refuses some strides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.graph import Value

aten = torch.ops.aten


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,  # noqa: ARG001  capture leaves no dropout inside this op
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    softmax: Callable[..., Tensor] = torch.softmax,
) -> Tensor:
    """softmax(Q Kᵀ · scale + mask) V, with 1/√d for the scale unless given."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (part.repeat_interleave(groups, dim=-3) for part in (key, value))
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    if attn_mask is not None:
        mask = scores.new_zeros(()).masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else attn_mask
        scores = scores + mask
    return softmax(scores, dim=-1) @ value


def reshaped(self: Tensor, size: list[int]) -> Tensor:
    """A view, or a copy where a batched tensor's strides allow no view."""
    return self.reshape(size)


def normalised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """(x - μ) / √(σ² + eps) with σ² = mean (x - μ)², not of moduli."""
    centred = x - x.mean(dim=tuple(dims), keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(dim=tuple(dims), keepdim=True) + eps)


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
    **_: Any,
) -> tuple[Tensor, ...]:
    """γ (x - μ) / √(σ² + eps) + β for each channel; the statistics that the op also returns carry no gradient."""
    across = [1, -1, *[1] * (input.dim() - 2)]
    if training:
        y = normalised(input, [d for d in range(input.dim()) if d != 1], eps)
    else:
        assert running_mean is not None
        assert running_var is not None
        y = (input - running_mean.view(across)) / torch.sqrt(running_var.view(across) + eps)
    parts = (part if part is None else part.reshape(across) for part in (weight, bias))
    empty = torch.zeros(0, dtype=torch.float64)
    return affine(y, *parts), empty, empty, empty, empty


def affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ y + β, as far as there are any."""
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


WRITTEN_OUT: Mapping[Any, Callable[..., Value]] = {
    aten.scaled_dot_product_attention.default: attention,
    aten._native_batch_norm_legit_functional.default: batch_norm,
    aten.view.default: reshaped,
    aten._unsafe_view.default: reshaped,
}
