"""Losses that ask for a margin: between classes, between labels and the rest, between directions.

ℓ is a sum of max(0, m − ahead), so its slope is −1 for every pair that lacks the margin and 0 for the others. With reduction
"mean" every example carries g/n, else g.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.loss import per_term, reduced
from chainrule.derivatives.rule import Rules, call_by_name

aten = torch.ops.aten
rules = Rules()

At = Mapping[str, Any]
Gradients = dict[str, Tensor]


# --- one class against the others -------------------------------------------------------------------------------------


def rows(x: Tensor) -> Tensor:
    """One row for each example; one example may come without."""
    return x if x.dim() > 1 else x.reshape(1, -1)


def _lacks(self_NC: Tensor, target_N: Tensor, margin: float) -> Tensor:
    """m − x_t + x_j, how much class j lacks of the margin; 0 for the target itself."""
    classes = target_N.unsqueeze(1)
    return (margin - self_NC.gather(1, classes) + self_NC).scatter(1, classes, 0)


def _class_weights(self_NC: Tensor, target_N: Tensor, weight: Tensor | None) -> Tensor:
    """w_t/C, one for each example."""
    weights = self_NC.new_ones(len(target_N)) if weight is None else weight[target_N]
    return weights.unsqueeze(1) / self_NC.shape[1]


def _multi_margin_kink(self: Tensor, target: Tensor, p: float, margin: float) -> Tensor:
    lacks = _lacks(rows(self), target.reshape(-1), margin)
    own = torch.zeros_like(lacks, dtype=torch.bool).scatter(1, target.reshape(-1, 1), True)
    return (lacks == 0) & ~own & (p == 1)


def _multi_margin_frozen(
    at: At, self: Tensor, target: Tensor, p: float, margin: float, weight: Tensor | None, reduction: int
) -> Tensor:
    x_NC, target_N = rows(self), target.reshape(-1)
    wrong = _lacks(rows(at["self"]), target_N, margin) > 0
    terms = torch.where(wrong, _lacks(x_NC, target_N, margin), 0) ** p * _class_weights(x_NC, target_N, weight)
    return reduced(terms.sum(1).reshape(target.shape if self.dim() > 1 else ()), reduction)


def _own_size(rule: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """The gradient is a sum of terms of one sign: it is its own bound."""

    def bound(g: Tensor, y: Tensor, **arguments: Any) -> Gradients:
        return {name: part.abs() for name, part in call_by_name(rule, arguments, g.abs(), y).items()}

    return bound


def multi_margin_loss(
    g: Tensor, y: Tensor, self: Tensor, target: Tensor, p: float, margin: float, weight: Tensor | None, reduction: int
) -> Gradients:
    """ℓ = w_t/C Σ_{j≠t} z_j^p,  z_j = max(0, m − x_t + x_j)        dℓ/dx_j = p z_j^(p−1) w_t/C,  dℓ/dx_t = −Σ_j"""
    x_NC, target_N = rows(self), target.reshape(-1)
    lacks = _lacks(x_NC, target_N, margin)
    slope = torch.where(lacks > 0, p * lacks ** (p - 1), 0) * _class_weights(x_NC, target_N, weight)
    slope = slope * per_term(g, target_N, reduction).reshape(-1, 1)
    return {"self": slope.scatter_add(1, target_N.unsqueeze(1), -slope.sum(1, keepdim=True)).reshape(self.shape)}


rules.vjp(
    aten.multi_margin_loss.default,
    nondiff=("target", "weight"),
    kink=_multi_margin_kink,
    frozen=_multi_margin_frozen,
    abs_bound=_own_size(multi_margin_loss),
)(multi_margin_loss)


# --- the labels against the rest --------------------------------------------------------------------------------------


def _pairs(self_NC: Tensor, target_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 − x_label + x_other for all pairs (label, other), which of the pairs count, and the labels.

    The labels of an example end at the first −1.
    """
    given = (target_NC >= 0).to(torch.int64).cumprod(1).bool()
    labels = torch.where(given, target_NC, 0)
    is_label = torch.zeros_like(self_NC).scatter_add(1, labels, given.to(self_NC.dtype)) > 0
    lacks = 1 - self_NC.gather(1, labels).unsqueeze(2) + self_NC.unsqueeze(1)
    return lacks, given.unsqueeze(2) & ~is_label.unsqueeze(1), labels


def _multilabel_frozen(at: At, self: Tensor, target: Tensor, reduction: int) -> Tensor:
    base, counts, _ = _pairs(rows(at["self"]), rows(target))
    lacks, _, _ = _pairs(rows(self), rows(target))
    terms = torch.where(counts & (base > 0), lacks, 0).sum((1, 2)) / lacks.shape[2]
    return reduced(terms if self.dim() > 1 else terms[0], reduction)


def multilabel_margin_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int) -> Gradients:
    """ℓ = 1/C Σ_{j label, i not} z_ji,  z_ji = max(0, 1 − x_j + x_i)        dℓ/dx_i = Σ_j [z_ji > 0]/C,  dℓ/dx_j = −Σ_i"""
    x_NC, target_NC = rows(self), rows(target)
    lacks, counts, labels = _pairs(x_NC, target_NC)
    share = per_term(g, target_NC[:, 0], reduction).reshape(-1, 1, 1) / lacks.shape[2]
    slope = torch.where(counts & (lacks > 0), share, 0)
    return {"self": slope.sum(1).scatter_add(1, labels, -slope.sum(2)).reshape(self.shape)}


rules.vjp(
    aten.multilabel_margin_loss.default,
    nondiff=("target",),
    frozen=_multilabel_frozen,
    abs_bound=_own_size(multilabel_margin_loss),
)(multilabel_margin_loss)


# --- directions -------------------------------------------------------------------------------------------------------


def cosine(x1: Tensor, x2: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """x₁·x₂/√(q₁ q₂) and q = x·x + 1e-12, as this loss and no other op has it."""
    q1, q2 = (x.square().sum(dim, keepdim=True) + 1e-12 for x in (x1, x2))
    return (x1 * x2).sum(dim, keepdim=True) / (q1 * q2).sqrt(), q1, q2


def _cosine_slope(cos: Tensor, target: Tensor, margin: float) -> Tensor:
    """dℓ/dcos: −1 for a like pair, [cos ≥ m] for an unlike one."""
    return ((target == -1) & (cos >= margin)).to(cos.dtype) - (target == 1).to(cos.dtype)


def _embedding_kink(input1: Tensor, input2: Tensor, target: Tensor, margin: float) -> Tensor:
    cos, _, _ = cosine(input1, input2, target.dim())
    return (cos.squeeze(target.dim()) == margin) & (target == -1)


def _embedding_frozen(at: At, input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    cos, base = (
        cosine(x1, x2, target.dim())[0].squeeze(target.dim())
        for x1, x2 in ((input1, input2), (at["input1"], at["input2"]))
    )
    slope = _cosine_slope(base, target, margin)
    return reduced(torch.where(slope < 0, 1 - cos, slope * (cos - margin)), reduction)


def _embedding_bound(
    g: Tensor, y: Tensor, input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int
) -> Gradients:
    dim = target.dim()
    cos, q1, q2 = cosine(input1, input2, dim)
    share = per_term(g, target, reduction) * _cosine_slope(cos.squeeze(dim), target, margin)
    share, root = share.unsqueeze(dim).abs(), (q1 * q2).sqrt()
    size = (input1 * input2).abs().sum(dim, keepdim=True) / root
    x1, x2 = input1.abs(), input2.abs()
    return {"input1": share * (x2 / root + size * x1 / q1), "input2": share * (x1 / root + size * x2 / q2)}


@rules.vjp(
    aten.cosine_embedding_loss.default,
    nondiff=("target",),
    kink=_embedding_kink,
    frozen=_embedding_frozen,
    abs_bound=_embedding_bound,
)
def cosine_embedding_loss(
    g: Tensor, y: Tensor, input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int
) -> Gradients:
    """ℓ = 1 − cos if t = 1, max(0, cos − m) if t = −1            dcos/dx₁ = x₂/|x₁||x₂| − cos x₁/|x₁|²"""
    dim = target.dim()
    cos, q1, q2 = cosine(input1, input2, dim)
    share = (per_term(g, target, reduction) * _cosine_slope(cos.squeeze(dim), target, margin)).unsqueeze(dim)
    root = (q1 * q2).sqrt()
    return {
        "input1": share * (input2 / root - cos * input1 / q1),
        "input2": share * (input1 / root - cos * input2 / q2),
    }
