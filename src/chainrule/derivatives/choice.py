"""Ops that choose, clip or fold, entry by entry: what passes has derivative 1, what does not has 0.

Each holds its choice at a base point (`frozen`), and says where it jumps (`kink`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.pointwise import pointwise
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
At = Mapping[str, Any]
Bound = Any  # a number, a tensor or None
Tangents = Mapping[str, Tensor]

# --- a mask that is given ---------------------------------------------------------------------------------------------


def _where_jvp(y: Tensor, t: Tangents, condition: Tensor) -> Tensor:
    return torch.where(condition, t.get("self", 0), t.get("other", 0)).to(y.dtype)


@rules.vjp(aten.where.self, nondiff=("condition",), jvp=_where_jvp, linear_in=("self", "other"))
def where(g: Tensor, y: Tensor, condition: Tensor) -> Mapping[str, Tensor]:
    """y = self if condition else other     dy/dself = [condition]      dy/dother = [not condition]"""
    return {"self": torch.where(condition, g, 0), "other": torch.where(condition, 0, g)}


@rules.vjp(aten.where.ScalarOther, nondiff=("condition",), jvp=_where_jvp, linear_in=("self",))
def where_else(g: Tensor, y: Tensor, condition: Tensor) -> Mapping[str, Tensor]:
    """y = self if condition else other     dy/dself = [condition]"""
    return {"self": torch.where(condition, g, 0)}


@rules.vjp(aten.where.ScalarSelf, nondiff=("condition",), jvp=_where_jvp, linear_in=("other",))
def where_not(g: Tensor, y: Tensor, condition: Tensor) -> Mapping[str, Tensor]:
    """y = self if condition else other     dy/dother = [not condition]"""
    return {"other": torch.where(condition, 0, g)}


def _masked_fill_jvp(y: Tensor, t: Tangents, mask: Tensor) -> Tensor:
    return torch.where(mask, t.get("value", 0), t.get("self", 0)).to(y.dtype).expand(y.shape)


@rules.vjp(aten.masked_fill.Scalar, nondiff=("mask",), jvp=_masked_fill_jvp, linear_in=("self",))
def masked_fill(g: Tensor, y: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    """y = value if mask else self      dy/dself = [not mask]"""
    return {"self": torch.where(mask, 0, g)}


@rules.vjp(aten.masked_fill.Tensor, nondiff=("mask",), jvp=_masked_fill_jvp, linear_in=("self", "value"))
def masked_fill_tensor(g: Tensor, y: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    """y = value if mask else self      dy/dself = [not mask]       dL/dvalue = Σ g [mask]"""
    return {"self": torch.where(mask, 0, g), "value": torch.where(mask, g, 0)}


def _fill_jvp(y: Tensor, t: Tangents) -> Tensor:
    return t["value"].expand(y.shape)


@rules.vjp(aten.fill.Tensor, nondiff=("self",), jvp=_fill_jvp, linear_in=("value",))
def fill(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = value everywhere     dL/dvalue = Σ g         dL/dself = 0"""
    return {"value": g.sum()}


# --- absolute value, maximum, minimum ---------------------------------------------------------------------------------


def _abs_frozen(at: At, self: Tensor) -> Tensor:
    sign: Tensor = at["self"].sign()
    return sign * self


@rules.local(aten.abs.default, aten.absolute.default, kink=lambda self: self == 0, frozen=_abs_frozen)
def absolute(y: Tensor, self: Tensor) -> Tensor:
    """y = |self|               dy/dself = sign self        (0 at the kink, as PyTorch)"""
    return self.sign()


def _share(g: Tensor, wins: Tensor, ties: Tensor) -> Tensor:
    """g where it wins, g/2 where it ties, 0 elsewhere."""
    return torch.where(ties, g / 2, g * wins)


def _tie(self: Tensor, other: Tensor) -> Tensor:
    return self == other


def _maximum_frozen(at: At, self: Tensor, other: Tensor) -> Tensor:
    a, b = at["self"], at["other"]
    return torch.where(a == b, (self + other) / 2, torch.where(a > b, self, other))


@pointwise(rules, aten.maximum.default, aten.max.other, kink=_tie, frozen=_maximum_frozen)
def maximum(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = max(a, b)            dy/da = [a > b]     dy/db = [b > a]     (1/2 each at a tie, as PyTorch)"""
    ties = self == other
    return {"self": _share(g, self > other, ties), "other": _share(g, other > self, ties)}


def _minimum_frozen(at: At, self: Tensor, other: Tensor) -> Tensor:
    a, b = at["self"], at["other"]
    return torch.where(a == b, (self + other) / 2, torch.where(a < b, self, other))


@pointwise(rules, aten.minimum.default, aten.min.other, kink=_tie, frozen=_minimum_frozen)
def minimum(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = min(a, b)            dy/da = [a < b]     dy/db = [b < a]     (1/2 each at a tie, as PyTorch)"""
    ties = self == other
    return {"self": _share(g, self < other, ties), "other": _share(g, other < self, ties)}


def _fmax_frozen(at: At, self: Tensor, other: Tensor) -> Tensor:
    return torch.where(at["self"] >= at["other"], self, other)


@pointwise(rules, aten.fmax.default, kink=_tie, frozen=_fmax_frozen)
def fmax(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = max(a, b), never nan    dy/da = [a ≥ b]     dy/db = [b > a]     (a takes a tie, as PyTorch)"""
    first = (self >= other) | other.isnan()
    return {"self": g * first, "other": g * ~first}


def _fmin_frozen(at: At, self: Tensor, other: Tensor) -> Tensor:
    return torch.where(at["self"] <= at["other"], self, other)


@pointwise(rules, aten.fmin.default, kink=_tie, frozen=_fmin_frozen)
def fmin(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = min(a, b), never nan    dy/da = [a ≤ b]     dy/db = [b < a]     (a takes a tie, as PyTorch)"""
    first = (self <= other) | other.isnan()
    return {"self": g * first, "other": g * ~first}


# --- clipping ---------------------------------------------------------------------------------------------------------


def _within(self: Tensor, low: Bound, high: Bound) -> Tensor:
    inside: Tensor = torch.ones_like(self, dtype=torch.bool) if low is None else self >= low
    return inside if high is None else inside & (self <= high)


def _over(self: Tensor, low: Bound, high: Bound) -> Tensor:
    """Where the upper bound is taken: above it, and everywhere if the bounds cross."""
    above: Tensor = self > high
    return above if low is None else above | torch.as_tensor(high < low)


def _clamp_kink(self: Tensor, min: Bound, max: Bound) -> Tensor:
    at_min = torch.zeros_like(self, dtype=torch.bool) if min is None else self == min
    return at_min if max is None else at_min | (self == max)


def _clamp_frozen(at: At, self: Tensor, min: Bound, max: Bound) -> Tensor:
    y = self if min is None else torch.where(at["self"] < at["min"], min, self)
    return y if max is None else torch.where(_over(at["self"], at["min"], at["max"]), max, y)


@rules.local(aten.clamp.default, aten.clip.default, kink=_clamp_kink, frozen=_clamp_frozen)
def clamp(y: Tensor, self: Tensor, min: Bound, max: Bound) -> Tensor:
    """y = min(max(self, a), b)     dy/dself = [a ≤ self ≤ b]"""
    return _within(self, min, max)


@pointwise(rules, aten.clamp.Tensor, aten.clip.Tensor, kink=_clamp_kink, frozen=_clamp_frozen)
def clamp_tensor(g: Tensor, y: Tensor, self: Tensor, min: Bound, max: Bound) -> Mapping[str, Tensor]:
    """y = min(max(self, a), b)     dy/dself = [a ≤ self ≤ b]   dy/da = [self < a < b]  dy/db = [self > b or a > b]"""
    found = {"self": g * _within(self, min, max)}
    if min is not None:
        found["min"] = g * (self < min) if max is None else g * (self < min) * (min < max)
    if max is not None:
        found["max"] = g * _over(self, min, max)
    return found


def _clamp_min_kink(self: Tensor, min: Bound) -> Tensor:
    return _clamp_kink(self, min, None)


def _clamp_min_frozen(at: At, self: Tensor, min: Bound) -> Tensor:
    return torch.where(at["self"] < at["min"], min, self)


@rules.local(aten.clamp_min.default, kink=_clamp_min_kink, frozen=_clamp_min_frozen)
def clamp_min(y: Tensor, self: Tensor, min: float) -> Tensor:
    """y = max(self, a)         dy/dself = [self ≥ a]"""
    return self >= min


@pointwise(rules, aten.clamp_min.Tensor, kink=_clamp_min_kink, frozen=_clamp_min_frozen)
def clamp_min_tensor(g: Tensor, y: Tensor, self: Tensor, min: Tensor) -> Mapping[str, Tensor]:
    """y = max(self, a)         dy/dself = [self ≥ a]       dy/da = [self < a]"""
    return {"self": g * (self >= min), "min": g * (self < min)}


def _clamp_max_kink(self: Tensor, max: Bound) -> Tensor:
    return _clamp_kink(self, None, max)


def _clamp_max_frozen(at: At, self: Tensor, max: Bound) -> Tensor:
    return torch.where(at["self"] > at["max"], max, self)


@rules.local(aten.clamp_max.default, kink=_clamp_max_kink, frozen=_clamp_max_frozen)
def clamp_max(y: Tensor, self: Tensor, max: float) -> Tensor:
    """y = min(self, b)         dy/dself = [self ≤ b]"""
    return self <= max


@pointwise(rules, aten.clamp_max.Tensor, kink=_clamp_max_kink, frozen=_clamp_max_frozen)
def clamp_max_tensor(g: Tensor, y: Tensor, self: Tensor, max: Tensor) -> Mapping[str, Tensor]:
    """y = min(self, b)         dy/dself = [self ≤ b]       dy/db = [self > b]"""
    return {"self": g * (self <= max), "max": g * (self > max)}


def _nan_to_num_frozen(at: At, self: Tensor) -> Tensor:
    return torch.where(at["self"].isfinite(), self, at["y"])


@rules.local(aten.nan_to_num.default, frozen=_nan_to_num_frozen)
def nan_to_num(y: Tensor, self: Tensor) -> Tensor:
    """y = self, or a number where self is nan or ±inf      dy/dself = [self is finite]"""
    return self.isfinite()


# --- folding ----------------------------------------------------------------------------------------------------------


def _whole(self: Tensor, other: Bound, mode: str) -> Tensor:
    return torch.div(self, other, rounding_mode=mode)


def _ratio_is_whole(self: Tensor, other: Bound) -> Tensor:
    return torch.remainder(self, other) == 0


def _fmod_frozen(at: At, self: Tensor, other: Bound) -> Tensor:
    return torch.sub(self, other * _whole(at["self"], at["other"], "trunc"))


@pointwise(rules, aten.fmod.Tensor, kink=_ratio_is_whole, frozen=_fmod_frozen)
def fmod(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = a − b trunc(a/b)     dy/da = 1       dy/db = −trunc(a/b)"""
    return {"self": g, "other": -g * _whole(self, other, "trunc")}


def _remainder_frozen(at: At, self: Tensor, other: Bound) -> Tensor:
    return torch.sub(self, other * _whole(at["self"], at["other"], "floor"))


@pointwise(rules, aten.remainder.Tensor, kink=_ratio_is_whole, frozen=_remainder_frozen)
def remainder(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = a − b floor(a/b)     dy/da = 1       dy/db = −floor(a/b)"""
    return {"self": g, "other": -g * _whole(self, other, "floor")}


def _same_jvp(y: Tensor, t: Tangents) -> Tensor:
    return t["self"]


@rules.vjp(aten.fmod.Scalar, kink=_ratio_is_whole, frozen=_fmod_frozen, jvp=_same_jvp)
def fmod_scalar(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = a − b trunc(a/b)     dy/da = 1"""
    return {"self": g}


@rules.vjp(aten.remainder.Scalar, kink=_ratio_is_whole, frozen=_remainder_frozen, jvp=_same_jvp)
def remainder_scalar(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = a − b floor(a/b)     dy/da = 1"""
    return {"self": g}


def _frac_frozen(at: At, self: Tensor) -> Tensor:
    whole: Tensor = at["self"].trunc()
    return self - whole


@rules.vjp(aten.frac.default, kink=lambda self: self == self.round(), frozen=_frac_frozen, jvp=_same_jvp)
def frac(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = self − trunc(self)   dy/dself = 1"""
    return {"self": g}


def _sign_from(self: Tensor, other: Bound) -> Tensor:
    return self.sign() * torch.copysign(torch.ones_like(self), other)


def _copysign_frozen(at: At, self: Tensor) -> Tensor:
    return self * _sign_from(at["self"], at["other"])


@rules.local(
    aten.copysign.Tensor,
    aten.copysign.Scalar,
    nondiff=("other",),
    kink=lambda self: self == 0,
    frozen=_copysign_frozen,
)
def copysign(y: Tensor, self: Tensor, other: Bound) -> Tensor:
    """y = |self| sign other    dy/dself = sign self · sign other       dy/dother = 0"""
    return _sign_from(self, other)
