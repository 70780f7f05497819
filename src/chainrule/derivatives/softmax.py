"""Softmax and its relatives: exponentials divided by, or summed to, a logarithm, along one dimension."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.derivatives.reduction import Dims, reducing, restore
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
Tangents = Mapping[str, Tensor]


def _softmax_jvp(y: Tensor, t: Tangents, dim: int) -> Tensor:
    return y * (t["self"] - (y * t["self"]).sum(dim, keepdim=True))


def _softmax_bound(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Tensor]:
    return {"self": y * (g.abs() + (g.abs() * y).sum(dim, keepdim=True))}


@rules.vjp(
    aten.softmax.int,
    aten._softmax.default,
    aten._safe_softmax.default,
    aten.special_softmax.default,
    jvp=_softmax_jvp,
    abs_bound=_softmax_bound,
)
def softmax(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_i = exp self_i / Σ exp self_j      dL/dself = y (g − Σ g y)"""
    weighted = g * y
    return {"self": weighted - y * weighted.sum(dim, keepdim=True)}


def _log_softmax_jvp(y: Tensor, t: Tangents, dim: int) -> Tensor:
    return t["self"] - (y.exp() * t["self"]).sum(dim, keepdim=True)


def _log_softmax_bound(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Tensor]:
    return {"self": g.abs() + y.exp() * g.abs().sum(dim, keepdim=True)}


@rules.vjp(
    aten.log_softmax.int,
    aten._log_softmax.default,
    aten.special_log_softmax.default,
    jvp=_log_softmax_jvp,
    abs_bound=_log_softmax_bound,
)
def log_softmax(g: Tensor, y: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_i = self_i − ln Σ exp self_j       dL/dself = g − exp(y) Σ g"""
    return {"self": g - y.exp() * g.sum(dim, keepdim=True)}


@reducing(rules, aten.logsumexp.default)
def logsumexp(g: Tensor, y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = ln Σ exp self_i      dy/dself_i = exp(self_i − y)"""
    return {"self": restore(g, self, dim, keepdim) * (self - restore(y, self, dim, keepdim)).exp()}


def _cumulative_weights(y: Tensor, self: Tensor, dim: int) -> Tensor:
    """exp(self_i − y_k) for i ≤ k, 0 for i > k, as a matrix (.., k, i) in place of dim."""
    y_K1, self_1I = y.movedim(dim, -1).unsqueeze(-1), self.movedim(dim, -1).unsqueeze(-2)
    past = torch.ones(self.shape[dim], self.shape[dim], dtype=torch.bool, device=self.device).tril()
    return torch.where(past, self_1I - y_K1, -torch.inf).exp()


def _logcumsumexp_jvp(y: Tensor, t: Tangents, self: Tensor, dim: int) -> Tensor:
    if not self.dim():
        return t["self"]
    moved = _cumulative_weights(y, self, dim) @ t["self"].movedim(dim, -1).unsqueeze(-1)
    return moved.squeeze(-1).movedim(-1, dim)


def _logcumsumexp_bound(g: Tensor, y: Tensor, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    return logcumsumexp(g.abs(), y, self, dim)


@rules.vjp(aten.logcumsumexp.default, jvp=_logcumsumexp_jvp, abs_bound=_logcumsumexp_bound)
def logcumsumexp(g: Tensor, y: Tensor, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_k = ln Σ_{i≤k} exp self_i          dL/dself_i = Σ_{k≥i} g_k exp(self_i − y_k)"""
    if not self.dim():
        return {"self": g}
    summed = g.movedim(dim, -1).unsqueeze(-2) @ _cumulative_weights(y, self, dim)
    return {"self": summed.squeeze(-2).movedim(-1, dim)}
