"""Ops that select entries along a dimension by their size: max, sort, topk, median. What is selected has derivative 1.

Where PyTorch returns an index, that entry alone gets the gradient; where only a value, equal entries share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.reduction import Dims, dims_of, reducing, restore
from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
At = Mapping[str, Any]
Pair = tuple[Tensor, Tensor]

# --- by value: equal entries share ------------------------------------------------------------------------------------


def _shares(y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """1 / number of equal ones at the entries that y holds, 0 elsewhere."""
    chosen = self == restore(y, self, dim, keepdim)
    return chosen / chosen.sum(dims_of(self, dim), keepdim=True, dtype=self.dtype) if self.dim() else chosen.to(self)


def _reduced(at: At, self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    shares = _shares(at["y"], at["self"], dim, keepdim)
    chosen = torch.where(shares > 0, self * shares, 0)
    return chosen.sum(dims_of(self, dim), keepdim) if self.dim() else chosen


def _by_value(g: Tensor, y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    return restore(g, self, dim, keepdim) * _shares(y, self, dim, keepdim)


def _ties(self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    """Where more than one entry is the largest, or the smallest."""
    ends = [op(self, dims_of(self, dim), True) for op in (torch.amax, torch.amin)]
    chosen = [(self == end) for end in ends]
    return torch.stack([c & (c.sum(dims_of(self, dim), True) > 1) for c in chosen]).any(0)


@reducing(rules, aten.amax.default, aten.amin.default, kink=_ties, frozen=_reduced)
def amax(g: Tensor, y: Tensor, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = max or min of self over dim      dy/dself_i = [self_i = y] / number of equal ones"""
    return {"self": _by_value(g, y, self, dim, keepdim)}


def _reduced_all(at: At, self: Tensor) -> Tensor:
    return _reduced(at, self, None, False)


@reducing(rules, aten.max.default, aten.min.default, aten.median.default, aten.nanmedian.default, frozen=_reduced_all)
def max_all(g: Tensor, y: Tensor, self: Tensor) -> Mapping[str, Tensor]:
    """y = max, min or median of self       dy/dself_i = [self_i = y] / number of equal ones"""
    return {"self": _by_value(g, y, self, None, False)}


# --- by index ---------------------------------------------------------------------------------------------------------


def _picked_frozen(at: At, self: Tensor, **settings: Any) -> Pair:
    indices = at["y"][1]
    return _gather(self, indices, settings), indices


def _picked_jvp(y: Pair, t: Mapping[str, Tensor], **settings: Any) -> Pair:
    return _gather(t["self"], y[1], settings), torch.zeros_like(y[1])


def _gather(self: Tensor, indices: Tensor, settings: Mapping[str, Any]) -> Tensor:
    dim, kept = settings["dim"], indices.dim() == self.dim()
    found = self.gather(dim, indices if kept else indices.unsqueeze(dim))
    return found if kept else found.squeeze(dim)


@rules.vjp(
    aten.max.dim,
    aten.min.dim,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    aten.kthvalue.default,
    aten.topk.default,
    aten.sort.default,
    aten.sort.stable,
    aten.cummax.default,
    aten.cummin.default,
    frozen=_picked_frozen,
    jvp=_picked_jvp,
)
def picked(g: Pair, y: Pair, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y_k = self at index_k along dim      dL/dself = 0, plus g_k at index_k"""
    kept = y[1].dim() == self.dim()
    indices, values = (y[1], g[0]) if kept else (y[1].unsqueeze(dim), g[0].unsqueeze(dim))
    return {"self": torch.zeros_like(self).scatter_add(dim, indices, values)}


def _aminmax_frozen(at: At, self: Tensor, dim: Dims, keepdim: bool) -> Pair:
    low, high = ({"self": at["self"], "y": y} for y in at["y"])
    return _reduced(low, self, dim, keepdim), _reduced(high, self, dim, keepdim)


def _aminmax_jvp(y: Pair, t: Mapping[str, Tensor], self: Tensor, dim: Dims, keepdim: bool) -> Pair:
    return _aminmax_frozen({"self": self, "y": y}, t["self"], dim, keepdim)


def _aminmax_bound(g: Pair, y: Pair, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    return aminmax((g[0].abs(), g[1].abs()), y, self, dim, keepdim)


@rules.vjp(aten.aminmax.default, abs_bound=_aminmax_bound, frozen=_aminmax_frozen, jvp=_aminmax_jvp)
def aminmax(g: Pair, y: Pair, self: Tensor, dim: Dims, keepdim: bool) -> Mapping[str, Tensor]:
    """y = (min, max) of self over dim      dy/dself_i = [self_i = y] / number of equal ones"""
    parts = [_by_value(g_k, y_k, self, dim, keepdim) for g_k, y_k in zip(g, y, strict=True)]
    return {"self": parts[0] + parts[1]}
