"""Sums, means, spreads, norms and products over some or all dimensions; cumulative ones.

In a schema `dim` is one dimension, several, or None or an empty list for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.rule import F, Rules, call_by_name

aten = torch.ops.aten
rules = Rules()
SELF = ("self",)
At = Mapping[str, Any]
Tangents = Mapping[str, Tensor]
Dims = int | Sequence[int] | None

# --- what all reductions need -----------------------------------------------------------------------------------------


def dims_of(self: Tensor, dim: Dims) -> tuple[int, ...]:
    """The reduced dimensions, counted from the front and in order."""
    if not self.dim():
        return ()
    given = (dim,) if isinstance(dim, int) else tuple(dim or range(self.dim()))
    return tuple(sorted(d % self.dim() for d in given))


def restore(reduced: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """The reduced tensor with its reduced dimensions back, of size 1, so that it broadcasts against self."""
    if keepdim:
        return reduced
    for d in dims_of(self, dim):
        reduced = reduced.unsqueeze(d)
    return reduced


def count(self: Tensor, dim: Dims) -> int:
    """How many entries are reduced to one."""
    return math.prod(self.shape[d] for d in dims_of(self, dim))


def reducing(rules: Rules, *ops: OpOverload, **declared: Any) -> Callable[[F], F]:
    """Register a vjp of y = f(the entries along dim): each entry has one slope, ∂y/∂self, which is the vjp of 1.

    The tangent follows, Σ ∂y/∂self · dself, and so does the bound |g · ∂y/∂self|.
    """

    def register(function: F) -> F:
        def jvp(y: Tensor, t: Tangents, **arguments: Any) -> Tensor:
            slope: Tensor = call_by_name(function, arguments, torch.ones_like(y), y)["self"]
            dims = dims_of(arguments["self"], arguments.get("dim"))
            return (slope * t["self"]).sum(dims, arguments.get("keepdim", False)) if dims else slope * t["self"]

        def abs_bound(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Tensor]:
            return {"self": call_by_name(function, arguments, g, y)["self"].abs()}

        return rules.vjp(*ops, **{"jvp": jvp, "abs_bound": abs_bound, **declared})(function)

    return register


# --- sum and mean -----------------------------------------------------------------------------------------------------


@rules.vjp(aten.sum.default, linear_in=SELF)
def sum_all(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = Σ self_i             dy/dself_i = 1"""
    return {"self": g.expand(self.shape)}


@rules.vjp(aten.sum.dim_IntList, linear_in=SELF)
def sum_dim(g: Tensor, y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = Σ self_i over dim    dy/dself_i = 1"""
    return {"self": restore(g, self, dim, keepdim).expand(self.shape)}


@rules.vjp(aten.mean.default, linear_in=SELF)
def mean_all(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = Σ self_i / n         dy/dself_i = 1/n"""
    return {"self": (g / self.numel()).expand(self.shape)}


@rules.vjp(aten.mean.dim, linear_in=SELF)
def mean_dim(g: Tensor, y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = Σ self_i / n over dim    dy/dself_i = 1/n"""
    return {"self": (restore(g, self, dim, keepdim) / count(self, dim)).expand(self.shape)}


@rules.vjp(aten.cumsum.default, linear_in=SELF)
def cumsum(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_k = Σ_{i≤k} self_i     dL/dself_i = Σ_{k≥i} g_k"""
    return {"self": g.flip(dim).cumsum(dim).flip(dim)}


# --- variance and standard deviation ----------------------------------------------------------------------------------


def _how(settings: Mapping[str, Any]) -> tuple[Dims, float, bool]:
    """(dim, correction, keepdim) out of the arguments of any overload; without correction it is 1."""
    given = settings.get("correction", settings.get("unbiased"))
    return settings.get("dim"), 1 if given is None else float(given), settings.get("keepdim", False)


def _times_two_over_freedom(g: Tensor, self: Tensor, dim: Dims, correction: float) -> Tensor:
    freedom = count(self, dim) - correction
    return g * (2 / freedom if freedom else math.inf)


def _by_var(g: Tensor, self: Tensor, settings: Mapping[str, Any]) -> Tensor:
    dim, correction, keepdim = _how(settings)
    deviation = self - self.mean(dims_of(self, dim), keepdim=True)
    return _times_two_over_freedom(restore(g, self, dim, keepdim), self, dim, correction) * deviation


def _by_mean(g: Tensor, self: Tensor, settings: Mapping[str, Any]) -> Tensor:
    dim, _, keepdim = _how(settings)
    return restore(g, self, dim, keepdim) / count(self, dim)


def _var_bound(g: Tensor, self: Tensor, settings: Mapping[str, Any]) -> Tensor:
    dim, correction, keepdim = _how(settings)
    magnitude = self.abs() + self.mean(dims_of(self, dim), keepdim=True).abs()
    return _times_two_over_freedom(restore(g.abs(), self, dim, keepdim), self, dim, correction) * magnitude


def _half_over(g: Tensor, deviation: Tensor) -> Tensor:
    """g · d√v/dv = g / (2 √v), and 0 where √v = 0, as PyTorch."""
    return torch.where(deviation == 0, 0, g / (2 * deviation))


def _var_abs_bound(g: Tensor, y: Tensor, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    return {"self": _var_bound(g, self, settings)}


def _std_abs_bound(g: Tensor, y: Tensor, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    return {"self": _var_bound(_half_over(g, y), self, settings)}


@reducing(rules, aten.var.default, aten.var.dim, aten.var.correction, abs_bound=_var_abs_bound)
def var(g: Tensor, y: Tensor, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    """y = Σ (self_i − m)² / (n − c)        dy/dself_i = 2 (self_i − m) / (n − c)      m the mean, c the correction"""
    return {"self": _by_var(g, self, settings)}


@reducing(rules, aten.std.default, aten.std.dim, aten.std.correction, abs_bound=_std_abs_bound)
def std(g: Tensor, y: Tensor, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    """y = √(Σ (self_i − m)² / (n − c))     dy/dself_i = (self_i − m) / (y (n − c))     (0 where y = 0, as PyTorch)"""
    return {"self": _by_var(_half_over(g, y), self, settings)}


Pair = tuple[Tensor, Tensor]


def _with_mean_jvp(y: Pair, t: Tangents, self: Tensor, half: bool, settings: Mapping[str, Any]) -> Pair:
    dim, _, keepdim = _how(settings)
    outer = _half_over(torch.ones_like(y[0]), y[0]) if half else torch.ones_like(y[0])
    slopes = _by_var(outer, self, settings) * t["self"]
    dims = dims_of(self, dim)
    return (slopes.sum(dims, keepdim), t["self"].mean(dims, keepdim)) if dims else (slopes, t["self"])


def _var_mean_jvp(y: Pair, t: Tangents, self: Tensor, **settings: Any) -> Pair:
    return _with_mean_jvp(y, t, self, False, settings)


def _std_mean_jvp(y: Pair, t: Tangents, self: Tensor, **settings: Any) -> Pair:
    return _with_mean_jvp(y, t, self, True, settings)


def _var_mean_bound(g: Pair, y: Pair, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    return {"self": _var_bound(g[0], self, settings) + _by_mean(g[1].abs(), self, settings)}


def _std_mean_bound(g: Pair, y: Pair, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    return {"self": _var_bound(_half_over(g[0], y[0]), self, settings) + _by_mean(g[1].abs(), self, settings)}


@rules.vjp(
    aten.var_mean.default,
    aten.var_mean.dim,
    aten.var_mean.correction,
    jvp=_var_mean_jvp,
    abs_bound=_var_mean_bound,
)
def var_mean(g: Pair, y: Pair, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    """y = (v, m), variance and mean        dv/dself_i = 2 (self_i − m) / (n − c)       dm/dself_i = 1/n"""
    return {"self": _by_var(g[0], self, settings) + _by_mean(g[1], self, settings)}


@rules.vjp(
    aten.std_mean.default,
    aten.std_mean.dim,
    aten.std_mean.correction,
    jvp=_std_mean_jvp,
    abs_bound=_std_mean_bound,
)
def std_mean(g: Pair, y: Pair, self: Tensor, **settings: Any) -> Mapping[str, Tensor]:
    """y = (s, m), standard deviation and mean      ds/dself_i = (self_i − m) / (s (n − c))     dm/dself_i = 1/n"""
    return {"self": _by_var(_half_over(g[0], y[0]), self, settings) + _by_mean(g[1], self, settings)}
