"""Cross entropy and negative log likelihood: the losses of classification and of language models.

    ℓ = −Σ_c q_c log p_c,   p = softmax x            dℓ/dx = p Σ_c q_c − q            dℓ/dq = −log p

q is the target: one class, or a distribution; smoothed, q_c ← (1 − ε) q_c + ε/C; times the weight w_c of each class.
A mean divides by the weight of the classes that are not ignored; for a distribution by the number of examples.
Goodfellow, Bengio & Courville 2016, section 6.2.2; label smoothing: Szegedy et al. 2016, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules, call_by_name

aten = torch.ops.aten
rules = Rules()

NONE, MEAN = 0, 1  # PyTorch's numbers for the reductions; 2 is the sum
Gradients = dict[str, Tensor]


def class_dim(self: Tensor) -> int:
    """The dimension of the classes: 1, or 0 where there is no batch."""
    return 1 if self.dim() > 1 else 0


def hits(self: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """For one class per example, with a dimension of size 1 for the classes: is it counted, the class, its weight."""
    classes = target.unsqueeze(class_dim(self))
    counted = classes != ignore_index
    classes = torch.where(counted, classes, 0)
    return counted, classes, torch.ones_like(classes, dtype=self.dtype) if weight is None else weight[classes]


def per_example(g: Tensor, self: Tensor, counted: Tensor, class_weight: Tensor, reduction: int) -> Tensor:
    """dL/dℓ_i for one class per example: g over the weight of all that count in a mean; 0 where ignored."""
    if reduction == MEAN:
        g = g / torch.where(counted, class_weight, 0).sum()
    return torch.where(counted, g.unsqueeze(class_dim(self)) if g.dim() else g, 0)


def along_classes(weight: Tensor | None, self: Tensor) -> Tensor:
    """The weights of the classes (ones if there are none) in a shape that broadcasts against the logits."""
    dim = class_dim(self)
    weight = self.new_ones(self.shape[dim]) if weight is None else weight
    return weight.reshape([-1 if d == dim else 1 for d in range(self.dim())])


# --- cross entropy ----------------------------------------------------------------------------------------------------


def through_classes(
    g: Tensor,
    self: Tensor,
    target: Tensor,
    weight: Any,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
    *,
    sign: int = -1,
) -> Gradients:
    """The target is a class: q is nonzero there and, smoothed, ε/C everywhere. sign = 1 gives g (p Σ q + q), for a bound."""
    dim, p = class_dim(self), self.softmax(class_dim(self))
    counted, classes, class_weight = hits(self, target, weight, ignore_index)
    g, hit = per_example(g, self, counted, class_weight, reduction), (1 - label_smoothing) * class_weight
    if not label_smoothing:
        return {"self": p.mul_(g * hit).scatter_add_(dim, classes, sign * g * hit)}
    every = label_smoothing / self.shape[dim] * along_classes(weight, self)
    dx = p.mul_(hit + every.sum(dim, keepdim=True)).add_(every, alpha=sign).mul_(g)
    return {"self": dx.scatter_add_(dim, classes, sign * g * hit)}


def through_distribution(
    g: Tensor, self: Tensor, target: Tensor, weight: Any, reduction: int, label_smoothing: float
) -> Gradients:
    """The target is a distribution: dℓ/dx = p Σ q − q and dℓ/dtarget = −(1 − ε) w log p."""
    dim, log_p = class_dim(self), self.log_softmax(class_dim(self))
    weight = along_classes(weight, self)
    q = ((1 - label_smoothing) * target + label_smoothing / self.shape[dim]) * weight
    if reduction == MEAN:
        g = g * self.shape[dim] / self.numel()
    g = g.unsqueeze(dim) if g.dim() else g
    dx = (log_p.exp() * q.sum(dim, keepdim=True)).sub_(q).mul_(g)
    return {"self": dx, "target": (label_smoothing - 1) * g * weight * log_p}


def _cross_entropy_bound(
    g: Tensor, y: Tensor, self: Tensor, target: Tensor, weight: Any, reduction: int, **others: Any
) -> Gradients:
    """g (p Σ q + q), and for a distribution g w |log p|."""
    if not target.is_floating_point():
        names = ("ignore_index", "label_smoothing")
        return through_classes(g.abs(), self, target, weight, reduction, *(others[name] for name in names), sign=1)
    dim, log_p = class_dim(self), self.log_softmax(class_dim(self))
    if reduction == MEAN:
        g = g * self.shape[dim] / self.numel()
    g, smooth = (g.unsqueeze(dim) if g.dim() else g).abs(), others["label_smoothing"] / self.shape[dim]
    weight = along_classes(weight, self)
    q = ((1 - others["label_smoothing"]) * target.abs() + smooth) * weight
    return {"self": g * (log_p.exp() * q.sum(dim, keepdim=True) + q), "target": g * weight * log_p.abs()}


def _cross_entropy_jvp(
    y: Tensor, t: Mapping[str, Tensor], self: Tensor, target: Tensor, reduction: int, **others: Any
) -> Tensor:
    arguments = {"self": self, "target": target, "reduction": reduction, **others}
    slopes = call_by_name(cross_entropy_loss, arguments, torch.ones_like(y), y)
    moved: Tensor = sum((t[name] * slope).sum(class_dim(self)) for name, slope in slopes.items() if name in t)
    return moved if reduction == NONE else moved.sum()


@rules.vjp(aten.cross_entropy_loss.default, nondiff=("weight",), abs_bound=_cross_entropy_bound, jvp=_cross_entropy_jvp)
def cross_entropy_loss(
    g: Tensor,
    y: Tensor,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
) -> Gradients:
    """ℓ = −Σ_c q_c log p_c,  p = softmax(self)            dL/dself = g (p Σ q − q)/n            dL/dq = −g log p / n"""
    if target.is_floating_point():
        return through_distribution(g, self, target, weight, reduction, label_smoothing)
    return through_classes(g, self, target, weight, reduction, ignore_index, label_smoothing)


# --- negative log likelihood ------------------------------------------------------------------------------------------


@rules.vjp(
    aten.nll_loss.default,
    aten.nll_loss_nd.default,
    aten.nll_loss2d.default,
    nondiff=("target", "weight"),
    linear_in=("self",),
)
def nll_loss(
    g: Tensor, y: Any, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> Gradients:
    """ℓ = −w_t self_t,  t = target            dL/dself_c = −g w_t [c = t]/Σw        (0 where t is ignored)"""
    counted, classes, class_weight = hits(self, target, weight, ignore_index)
    g = per_example(g, self, counted, class_weight, reduction)
    return {"self": torch.zeros_like(self).scatter_(class_dim(self), classes, -g * class_weight)}


@rules.vjp(
    aten.nll_loss_forward.default, aten.nll_loss2d_forward.default, nondiff=("target", "weight"), linear_in=("self",)
)
def nll_loss_forward(
    g: Any, y: Any, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> Gradients:
    """ℓ = −w_t self_t and Σw,  t = target            dL/dself_c = −g w_t [c = t]/Σw        (0 where t is ignored)"""
    return nll_loss(g[0], y, self, target, weight, reduction, ignore_index)
