"""Vector norms, and products: reductions whose slope depends on all the entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.reduction import Dims, dims_of, reducing, restore
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
At = Mapping[str, Any]

# --- norms ------------------------------------------------------------------------------------------------------------


def norm_slope(norm: Tensor, self: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """∂‖x‖_p/∂x_i, with 0 where the norm has none: at 0, and for p = 0, which counts."""
    if p == 0:
        return torch.zeros_like(self)
    if p == 1:
        return self.sign()
    if math.isinf(p):
        largest = self.abs() == norm
        return self.sign() * largest / largest.sum(dims, keepdim=True) if dims else self.sign()
    ratio = torch.where(norm == 0, 0, self.abs() / norm)
    return torch.where(self == 0, 0, self.sign() * ratio.pow(p - 1))


def _norm(g: Tensor, y: Tensor, self: Tensor, p: float | None, dim: Dims, keepdim: bool) -> Tensor:
    norm = restore(y, self, dim, keepdim)
    return restore(g, self, dim, keepdim) * norm_slope(
        norm, self.to(y.dtype), 2 if p is None else p, dims_of(self, dim)
    )


def _frozen(at: At, self: Tensor, p: float | None, dim: Dims, keepdim: bool) -> Tensor | None:
    """Signs, and which entries are the largest, as at the base point; None for the norms that are smooth but at 0."""
    if p == 0:
        return torch.as_tensor(at["y"])
    if p is None or (p != 1 and not math.isinf(p)):
        return None
    slope = norm_slope(restore(at["y"], self, dim, keepdim), at["self"].to(at["y"].dtype), p, dims_of(self, dim))
    return (slope * self).sum(dims_of(self, dim), keepdim) if self.dim() else slope * self


def _vector_norm_frozen(
    at: At, self: Tensor, ord: float, dim: Dims, keepdim: bool, dtype: torch.dtype | None
) -> Tensor:
    held = _frozen(at, self, ord, dim, keepdim)
    return torch.linalg.vector_norm(self, ord, dim, keepdim, dtype=dtype) if held is None else held


def _zeros(self: Tensor) -> Tensor:
    return self == 0


@reducing(rules, aten.linalg_vector_norm.default, kink=_zeros, frozen=_vector_norm_frozen)
def vector_norm(g: Tensor, y: Tensor, self: Tensor, ord: float, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = (Σ |self_i|^p)^(1/p)     dy/dself_i = sign(self_i) (|self_i| / y)^(p − 1)        (p = 2: self_i / y)"""
    return {"self": _norm(g, y, self, ord, dim, keepdim)}


def _norm_frozen(at: At, self: Tensor, p: float | None, dim: Dims, keepdim: bool) -> Tensor:
    held = _frozen(at, self, p, dim, keepdim)
    return torch.linalg.vector_norm(self, 2 if p is None else p, dim, keepdim) if held is None else held


@reducing(rules, aten.norm.ScalarOpt_dim, aten.norm.ScalarOpt_dim_dtype, kink=_zeros, frozen=_norm_frozen)
def norm_dim(g: Tensor, y: Tensor, self: Tensor, p: float | None, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = (Σ |self_i|^p)^(1/p)     dy/dself_i = sign(self_i) (|self_i| / y)^(p − 1)        (p = 2: self_i / y)"""
    return {"self": _norm(g, y, self, p, dim, keepdim)}


def _norm_all_frozen(at: At, self: Tensor, p: float | None) -> Tensor:
    return _norm_frozen(at, self, p, None, False)


@reducing(rules, aten.norm.Scalar, aten.norm.ScalarOpt_dtype, kink=_zeros, frozen=_norm_all_frozen)
def norm_all(g: Tensor, y: Tensor, self: Tensor, p: float | None) -> Mapping[str, Tensor]:
    """y = (Σ |self_i|^p)^(1/p)     dy/dself_i = sign(self_i) (|self_i| / y)^(p − 1)        (p = 2: self_i / y)"""
    return {"self": _norm(g, y, self, p, None, False)}


# --- products ---------------------------------------------------------------------------------------------------------


def _products_before(self: Tensor, dim: int) -> Tensor:
    """Π_{j<i} self_j: no division, so that zeros are no exception."""
    if not self.numel():
        return self
    first = torch.ones_like(self.narrow(dim, 0, 1))
    return torch.cat([first, self.narrow(dim, 0, self.shape[dim] - 1)], dim).cumprod(dim)


def _products_without(self: Tensor, dim: int) -> Tensor:
    """Π_{j≠i} self_j"""
    if not self.dim():
        return torch.ones_like(self)
    return _products_before(self, dim) * _products_before(self.flip(dim), dim).flip(dim)


@reducing(rules, aten.prod.dim_int)
def prod_dim(g: Tensor, y: Tensor, self: Tensor, dim: int, keepdim: bool) -> Mapping[str, Tensor]:
    """y = Π self_i over dim        dy/dself_i = Π_{j≠i} self_j"""
    return {"self": restore(g, self, dim, keepdim) * _products_without(self, dim)}


@reducing(rules, aten.prod.default)
def prod_all(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = Π self_i                 dy/dself_i = Π_{j≠i} self_j"""
    return {"self": g * _products_without(self.reshape(-1), 0).reshape(self.shape)}


def _cumprod_jvp(y: Tensor, t: Mapping[str, Tensor], self: Tensor, dim: int) -> Tensor:
    """ẏ_k = ẏ_{k−1} x_k + y_{k−1} ẋ_k"""
    if not self.dim():
        return t["self"]
    moved, tangents = torch.zeros_like(self.select(dim, 0)), []
    before = _products_before(self, dim)
    for x, x_t, product in zip(self.unbind(dim), t["self"].unbind(dim), before.unbind(dim), strict=True):
        moved = moved * x + product * x_t
        tangents.append(moved)
    return torch.stack(tangents, dim)


@rules.vjp(aten.cumprod.default, jvp=_cumprod_jvp)
def cumprod(g: Tensor, y: Tensor, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_k = Π_{i≤k} self_i         dL/dself_i = (Π_{j<i} self_j) s_i,     s_i = g_i + self_{i+1} s_{i+1}"""
    if not self.dim() or not self.numel():
        return {"self": g}
    later, sums = torch.zeros_like(g.select(dim, 0)), []
    factors = torch.cat([self.narrow(dim, 1, self.shape[dim] - 1), torch.zeros_like(self.narrow(dim, 0, 1))], dim)
    for g_i, factor in zip(reversed(g.unbind(dim)), reversed(factors.unbind(dim)), strict=True):
        later = g_i + factor * later
        sums.append(later)
    return {"self": _products_before(self, dim) * torch.stack(sums[::-1], dim)}
