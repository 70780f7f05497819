"""Arithmetic on several tensors, entry by entry; broadcasting is undone by the engine.

In a graph a tensor argument may be a Python number (`x * 2` is mul.Tensor): its gradient is dropped.
It may hold integers, too: torch computes `1 / integers` and `integers.log()` in float32, so they are cast to that of y.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.pointwise import pointwise
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
Tangents = Mapping[str, Tensor]

# --- sums -------------------------------------------------------------------------------------------------------------


def _weighted_sum(y: Tensor, t: Tangents, **weights: float) -> Tensor:
    """Σ weight · tangent, shaped like y: what a broadcast argument's tangent alone would not be."""
    return sum((t[name] * weight for name, weight in weights.items() if name in t), torch.zeros_like(y))


def _add_jvp(y: Tensor, t: Tangents, alpha: float) -> Tensor:
    return _weighted_sum(y, t, self=1, other=alpha)


@rules.vjp(aten.add.Tensor, jvp=_add_jvp, linear_in=("self", "other"))
def add(g: Tensor, y: Tensor, alpha: float) -> Mapping[str, Tensor]:
    """y = self + α other       dy/dself = 1        dy/dother = α"""
    return {"self": g, "other": g if alpha == 1 else g * alpha}


def _sub_jvp(y: Tensor, t: Tangents, alpha: float) -> Tensor:
    return _weighted_sum(y, t, self=1, other=-alpha)


@rules.vjp(aten.sub.Tensor, aten.subtract.Tensor, jvp=_sub_jvp, linear_in=("self", "other"))
def sub(g: Tensor, y: Tensor, alpha: float) -> Mapping[str, Tensor]:
    """y = self − α other       dy/dself = 1        dy/dother = −α"""
    return {"self": g, "other": g * -alpha}


def _rsub_jvp(y: Tensor, t: Tangents, alpha: float) -> Tensor:
    return _weighted_sum(y, t, self=-alpha, other=1)


@rules.vjp(aten.rsub.Tensor, jvp=_rsub_jvp, linear_in=("self", "other"))
def rsub(g: Tensor, y: Tensor, alpha: float) -> Mapping[str, Tensor]:
    """y = other − α self       dy/dself = −α       dy/dother = 1"""
    return {"self": g * -alpha, "other": g}


def _same_jvp(y: Tensor, t: Tangents) -> Tensor:
    return t["self"]


@rules.vjp(aten.add.Scalar, aten.sub.Scalar, jvp=_same_jvp, linear_in=("self",))
def add_scalar(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = self ± α other       dy/dself = 1"""
    return {"self": g}


def _rsub_scalar_jvp(y: Tensor, t: Tangents, alpha: float) -> Tensor:
    return t["self"] * -alpha


@rules.vjp(aten.rsub.Scalar, jvp=_rsub_scalar_jvp, linear_in=("self",))
def rsub_scalar(g: Tensor, y: Tensor, alpha: float) -> Mapping[str, Tensor]:
    """y = other − α self       dy/dself = −α"""
    return {"self": g * -alpha}


# --- products and quotients -------------------------------------------------------------------------------------------


@rules.vjp(aten.mul.Tensor, aten.multiply.Tensor, linear_in=("self", "other"))
def mul(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = self · other         dy/dself = other    dy/dother = self"""
    return {"self": g * other, "other": g * self}


@rules.vjp(aten.mul.Scalar, linear_in=("self",))
def mul_scalar(g: Tensor, y: Tensor, other: float) -> Mapping[str, Tensor]:
    """y = self · other         dy/dself = other"""
    return {"self": g * other}


def _div_jvp(y: Tensor, t: Tangents, other: Tensor) -> Tensor:
    return (t.get("self", 0) - y * t.get("other", 0)) / other


def _div_domain(self: Tensor, other: Tensor) -> Tensor:
    return torch.as_tensor(other != 0)


@rules.vjp(
    aten.div.Tensor, aten.divide.Tensor, aten.true_divide.Tensor, jvp=_div_jvp, linear_in=("self",), domain=_div_domain
)
def div(g: Tensor, y: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = self / other         dy/dself = 1 / other        dy/dother = −y / other"""
    by_self = g / other
    return {"self": by_self, "other": -by_self * y}


@rules.vjp(aten.div.Scalar, linear_in=("self",))
def div_scalar(g: Tensor, y: Tensor, other: float) -> Mapping[str, Tensor]:
    """y = self / other         dy/dself = 1 / other"""
    return {"self": g / other}


def _rounded_div_frozen(at: Mapping[str, Any], self: Tensor, other: Any, rounding_mode: str | None) -> Any:
    return torch.div(self, other) if rounding_mode is None else at["y"]


def _rounded_div_jvp(y: Tensor, t: Tangents, other: Tensor, rounding_mode: str | None) -> Tensor:
    return _div_jvp(y, t, other) if rounding_mode is None else torch.zeros_like(y)


@rules.vjp(aten.div.Tensor_mode, jvp=_rounded_div_jvp, frozen=_rounded_div_frozen)
def rounded_div(g: Tensor, y: Tensor, other: Tensor, rounding_mode: str | None) -> Mapping[str, Tensor]:
    """y = round(self / other)  dy/dself = 0                dy/dother = 0               (div's, if not rounded)"""
    if rounding_mode is None:
        return div(g, y, other)
    return {"self": torch.zeros_like(g), "other": torch.zeros_like(g)}


@rules.vjp(aten.div.Scalar_mode, jvp=_rounded_div_jvp, frozen=_rounded_div_frozen)
def rounded_div_scalar(g: Tensor, y: Tensor, other: float, rounding_mode: str | None) -> Mapping[str, Tensor]:
    """y = round(self / other)  dy/dself = 0                (1 / other, if not rounded)"""
    return {"self": g / other if rounding_mode is None else torch.zeros_like(g)}


@rules.vjp(aten.addcmul.default, linear_in=("self", "tensor1", "tensor2"))
def addcmul(g: Tensor, y: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Mapping[str, Tensor]:
    """y = self + c a b         dy/dself = 1        dy/da = c b         dy/db = c a"""
    return {"self": g, "tensor1": g * tensor2 * value, "tensor2": g * tensor1 * value}


@pointwise(rules, aten.addcdiv.default, linear_in=("self", "tensor1"), domain=lambda tensor2: tensor2 != 0)
def addcdiv(g: Tensor, y: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Mapping[str, Tensor]:
    """y = self + c a / b       dy/dself = 1        dy/da = c / b       dy/db = −c a / b²"""
    by_ratio = value * g / tensor2
    return {"self": g, "tensor1": by_ratio, "tensor2": -by_ratio * tensor1 / tensor2}


@pointwise(rules, aten.lerp.Tensor, linear_in=("self", "end", "weight"))
def lerp(g: Tensor, y: Tensor, self: Tensor, end: Tensor, weight: Tensor) -> Mapping[str, Tensor]:
    """y = self + w (end − self)    dy/dself = 1 − w    dy/dend = w     dy/dw = end − self"""
    return {"self": g * (1 - weight), "end": g * weight, "weight": g * (end - self)}


@pointwise(rules, aten.lerp.Scalar, linear_in=("self", "end"))
def lerp_scalar(g: Tensor, y: Tensor, weight: float) -> Mapping[str, Tensor]:
    """y = self + w (end − self)    dy/dself = 1 − w    dy/dend = w"""
    return {"self": g * (1 - weight), "end": g * weight}


# --- powers and logarithms --------------------------------------------------------------------------------------------


def _pow_domain(self: Tensor, exponent: float) -> Tensor:
    """Real powers want a positive base; whole ones any base, but not zero if negative."""
    if not float(exponent).is_integer():
        return self > 0
    return self != 0 if exponent < 0 else torch.ones_like(self, dtype=torch.bool)


@rules.local(aten.pow.Tensor_Scalar, domain=_pow_domain)
def pow_scalar(y: Tensor, self: Tensor, exponent: float) -> Tensor:
    """y = self^n               dy/dself = n self^(n − 1)"""
    return exponent * self.pow(exponent - 1) if exponent else torch.zeros_like(self)


def _pow_slope(y: Tensor, base: Tensor, exponent: Tensor) -> Tensor:
    """y ln base, and 0 where the base is 0 and the exponent is not negative, as the limit of base → 0."""
    return torch.where((base == 0) & (exponent >= 0), 0, y * base.to(y.dtype).log())


@pointwise(rules, aten.pow.Tensor_Tensor, domain=lambda self: self > 0)
def pow_tensor(g: Tensor, y: Tensor, self: Tensor, exponent: Tensor) -> Mapping[str, Tensor]:
    """y = self^n               dy/dself = n self^(n − 1)       dy/dn = y ln self"""
    by_base = torch.where(exponent == 0, 0, exponent * self.pow(exponent - 1))
    return {"self": g * by_base, "exponent": g * _pow_slope(y, self, exponent)}


@pointwise(rules, aten.pow.Scalar)
def pow_base(g: Tensor, y: Tensor, self: float, exponent: Tensor) -> Mapping[str, Tensor]:
    """y = self^n               dy/dn = y ln self"""
    return {"exponent": g * _pow_slope(y, torch.full_like(exponent, self), exponent)}


def _xlogy_slope(y: Tensor, self: Tensor, other: Tensor) -> Tensor:
    """ln other, and 0 where 0 · ln 0 was taken as 0."""
    return torch.where((self == 0) & (other <= 0), 0, other.to(y.dtype).log())


@pointwise(rules, aten.xlogy.Tensor, linear_in=("self",), domain=lambda other: other > 0)
def xlogy(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = self ln other        dy/dself = ln other     dy/dother = self / other"""
    return {"self": g * _xlogy_slope(y, self, other), "other": g * self / other}


@pointwise(rules, aten.xlogy.Scalar_Other, linear_in=("self",))
def xlogy_scalar(g: Tensor, y: Tensor, self: Tensor, other: float) -> Mapping[str, Tensor]:
    """y = self ln other        dy/dself = ln other"""
    return {"self": g * _xlogy_slope(y, self, torch.full_like(self, other))}


@pointwise(rules, aten.xlogy.Scalar_Self, domain=lambda other: other > 0)
def xlogy_factor(g: Tensor, y: Tensor, self: float, other: Tensor) -> Mapping[str, Tensor]:
    """y = self ln other        dy/dother = self / other"""
    return {"other": g * self / other}


@pointwise(rules, aten.logaddexp.default)
def logaddexp(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = ln(exp a + exp b)    dy/da = σ(a − b)    dy/db = σ(b − a)"""
    return {"self": g * torch.sigmoid(self - other), "other": g * torch.sigmoid(other - self)}


@pointwise(rules, aten.logaddexp2.default)
def logaddexp2(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = log₂(2^a + 2^b)      dy/da = σ((a − b) ln 2)     dy/db = σ((b − a) ln 2)"""
    difference = (self - other) * math.log(2)
    return {"self": g * torch.sigmoid(difference), "other": g * torch.sigmoid(-difference)}


# --- geometry ---------------------------------------------------------------------------------------------------------


@pointwise(rules, aten.atan2.default, aten.arctan2.default, domain=lambda self, other: (self != 0) | (other != 0))
def atan2(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = arctan(a / b)        dy/da = b / r²      dy/db = −a / r²,    r² = a² + b²    (0 at r = 0, as PyTorch)"""
    squared = self * self + other * other
    inverse = torch.where(squared == 0, 0, 1 / squared)
    return {"self": g * other * inverse, "other": -g * self * inverse}


@pointwise(rules, aten.hypot.default, domain=lambda self, other: (self != 0) | (other != 0))
def hypot(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = √(a² + b²)           dy/da = a / y       dy/db = b / y"""
    return {"self": g * self / y, "other": g * other / y}
