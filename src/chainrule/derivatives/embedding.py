"""Look-up tables: rows of a weight by index, one by one or in bags. Suffixes: V rows, D columns, N look-ups, B bags.

PyTorch lets a row at `padding_idx` get no gradient, and can divide by how often a row is looked up. Neither is the
derivative of forward; `frozen` is the function of which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
At = Mapping[str, Any]
MEAN, MAX = 1, 2

# --- one by one -------------------------------------------------------------------------------------------------------


def _share(weight: Tensor, indices: Tensor, padding_idx: int, scale_grad_by_freq: bool) -> Tensor | None:
    """The part of its gradient that each look-up passes on: 0 for padding, 1/count by frequency; None = all of it."""
    share = None if padding_idx < 0 else (indices != padding_idx).to(weight.dtype)
    if scale_grad_by_freq:
        flat = indices.reshape(-1)
        count = weight.new_zeros(weight.shape[0]).index_add(0, flat, torch.ones_like(flat, dtype=weight.dtype))[indices]
        return torch.reciprocal(count) if share is None else share / count
    return share


def _embedding_frozen(
    at: Mapping[str, Any], weight: Tensor, indices: Tensor, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor:
    """What PyTorch's gradient is the gradient of: rows that pass on a share of it move by that share only."""
    share = _share(weight, indices, padding_idx, scale_grad_by_freq)
    if share is None:
        return weight[indices]
    return torch.add(at["y"], (weight - at["weight"])[indices] * share[..., None])


def _embedding_jvp(
    y: Tensor,
    t: Mapping[str, Tensor],
    weight: Tensor,
    indices: Tensor,
    padding_idx: int,
    scale_grad_by_freq: bool,
) -> Tensor:
    share = _share(weight, indices, padding_idx, scale_grad_by_freq)
    return t["weight"][indices] if share is None else t["weight"][indices] * share[..., None]


@rules.vjp(
    aten.embedding.default, nondiff=("indices",), linear_in=("weight",), frozen=_embedding_frozen, jvp=_embedding_jvp
)
def embedding(
    g: Tensor, y: Tensor, weight: Tensor, indices: Tensor, padding_idx: int, scale_grad_by_freq: bool
) -> Mapping[str, Tensor]:
    """y_i = weight[indices_i]              dL/dweight = 0, plus g_i at row indices_i       (nothing at padding_idx)"""
    share = _share(weight, indices, padding_idx, scale_grad_by_freq)
    scaled = g if share is None else g * share[..., None]
    rows = scaled.reshape(-1, weight.shape[1])
    return {"weight": g.new_zeros(weight.shape).index_add(0, indices.reshape(-1), rows)}


# --- pooled -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bags:
    """The sums that make the bags: y_b = Σ over the look-ups n of bag b, of factor_n weight[index_n].

    factor  1, the look-up's own weight, or 1 / size of the bag; 0 for padding
    share   the part of its gradient that a look-up passes on
    size    of each bag (B); the others are per look-up (N)
    """

    index: Tensor
    bag: Tensor
    kept: Tensor
    factor: Tensor
    share: Tensor | float
    size: Tensor

    def pool(self, weight_VD: Tensor, factor_N: Tensor) -> Tensor:
        rows_ND = weight_VD[self.index] * factor_N[:, None]
        return rows_ND.new_zeros(self.size.shape[0], rows_ND.shape[1]).index_add(0, self.bag, rows_ND)

    def largest(self, weight_VD: Tensor, row_BD: Tensor) -> Tensor:
        return torch.where(self.size[:, None] > 0, weight_VD.gather(0, row_BD), 0)


def _bags(y: Outputs, arguments: Mapping[str, Any]) -> _Bags:
    """The bags, from the arguments: some of PyTorch's paths leave forward's own second and third output empty."""
    index_N, weights_N, weight_VD = arguments["indices"], arguments["per_sample_weights"], arguments["weight"]
    padding = arguments["padding_idx"]
    offsets = arguments["offsets"][:-1] if arguments["include_last_offset"] else arguments["offsets"]
    places_N = torch.arange(index_N.shape[0], device=offsets.device, dtype=offsets.dtype)
    bag_N = torch.searchsorted(offsets.contiguous(), places_N, right=True) - 1
    kept_N = torch.ones_like(index_N) if padding is None else index_N != padding % weight_VD.shape[0]
    kept_N = kept_N.to(weight_VD.dtype)
    size_B = kept_N.new_zeros(y[0].shape[0]).index_add(0, bag_N, kept_N)
    factor_N = kept_N if weights_N is None else kept_N * weights_N
    if arguments["mode"] == MEAN:
        factor_N = kept_N / size_B.clamp(min=1)[bag_N]
    share_N = _share(weight_VD, index_N, -1, arguments["scale_grad_by_freq"])
    return _Bags(index_N, bag_N, kept_N, factor_N, 1.0 if share_N is None else share_N, size_B)


def _bag_frozen(at: At, **arguments: Any) -> Outputs:
    """The largest at the rows where they are at the base point; else sums, a share of which moves with the weight."""
    y, weight_VD, bags = at["y"], arguments["weight"], _bags(at["y"], arguments)
    if arguments["mode"] == MAX:
        return (bags.largest(weight_VD, y[3]), *y[1:])
    still = bags.pool(at["weight"], bags.factor)
    return (still + bags.pool(weight_VD - at["weight"], bags.factor * bags.share), *y[1:])


def _bag_jvp(y: Outputs, t: Mapping[str, Tensor], **arguments: Any) -> Outputs:
    bags, moved = _bags(y, arguments), torch.zeros_like(y[0])
    if "weight" in t and arguments["mode"] == MAX:
        moved = bags.largest(t["weight"], y[3])
    elif "weight" in t:
        moved = bags.pool(t["weight"], bags.factor * bags.share)
    if "per_sample_weights" in t:
        moved = moved + bags.pool(arguments["weight"], bags.kept * t["per_sample_weights"])
    return moved, torch.zeros_like(y[1]), torch.zeros_like(y[2]), torch.zeros_like(y[3])


@rules.vjp(aten.embedding_bag.padding_idx, nondiff=("indices", "offsets"), frozen=_bag_frozen, jvp=_bag_jvp)
def embedding_bag(g: Outputs, y: Outputs, **arguments: Any) -> Mapping[str, Tensor | None]:
    """y_b = Σ_n w_n weight[index_n]    dL/dweight[index_n] += w_n g_b      dL/dw_n = g_b · weight[index_n]     (n in b)

    The mean has w_n = 1 / size of the bag; the largest of each column is one entry, and its row gets g.
    """
    weight_VD, bags = arguments["weight"], _bags(y, arguments)
    rows_VD = g[0].new_zeros(weight_VD.shape)
    if arguments["mode"] == MAX:
        taken_BD = torch.where(bags.size[:, None] > 0, g[0], 0)
        return {"weight": rows_VD.scatter_add(0, y[3], taken_BD), "per_sample_weights": None}
    g_ND = g[0][bags.bag]
    by_weight = rows_VD.index_add(0, bags.index, g_ND * (bags.factor * bags.share)[:, None])
    by_factor = (g_ND * weight_VD[bags.index]).sum(1) * bags.kept
    return {"weight": by_weight, "per_sample_weights": None if arguments["per_sample_weights"] is None else by_factor}
