"""Look-up tables: rows of a weight by index, one by one or in bags. Suffixes: V rows, D columns, N look-ups, B bags.

PyTorch lets a row at `padding_idx` get no gradient, and can divide by how often a row is looked up. Neither is the
derivative of forward; `frozen` is the function of which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def _bag_of(index_N: Tensor, offsets: Tensor, include_last_offset: bool) -> Tensor:
    """The bag of each look-up: the last one that starts at or before it. PyTorch's own output of it may be empty."""
    starts_B = offsets[:-1] if include_last_offset else offsets
    places_N = torch.arange(index_N.shape[0], device=offsets.device, dtype=offsets.dtype)
    return torch.searchsorted(starts_B.contiguous(), places_N, right=True) - 1


def _kept(index_N: Tensor, weight_VD: Tensor, padding_idx: int | None) -> Tensor:
    """1 for each look-up, 0 for padding; a negative row counts from the last one."""
    if padding_idx is None:
        return torch.ones_like(index_N, dtype=weight_VD.dtype)
    return (index_N != padding_idx % weight_VD.shape[0]).to(weight_VD.dtype)


def _sizes(y: Outputs, bag_N: Tensor, kept_N: Tensor) -> Tensor:
    return kept_N.new_zeros(y[0].shape[0]).index_add(0, bag_N, kept_N)


def _factors(y: Outputs, bag_N: Tensor, kept_N: Tensor, mode: int, weights_N: Tensor | None) -> Tensor:
    """What each look-up is multiplied by in its bag: 1, its own weight, or 1 / size of the bag; 0 for padding."""
    if mode == MEAN:
        return kept_N / _sizes(y, bag_N, kept_N).clamp(min=1)[bag_N]
    return kept_N if weights_N is None else kept_N * weights_N


def _pool(y: Outputs, rows_ND: Tensor, factor_N: Tensor, bag_N: Tensor) -> Tensor:
    """Σ over the look-ups of each bag of factor · row."""
    return rows_ND.new_zeros(y[0].shape).index_add(0, bag_N, rows_ND * factor_N[:, None])


def _largest(y: Outputs, weight_VD: Tensor, bag_N: Tensor, kept_N: Tensor) -> Tensor:
    """The entries of the weight that were the largest of their bag and column; 0 for an empty bag."""
    return torch.where(_sizes(y, bag_N, kept_N)[:, None] > 0, weight_VD.gather(0, y[3]), 0)


def _moved(y: Outputs, weight_VD: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """What is linear in the weight of the output, and has PyTorch's gradient."""
    index_N, given = arguments["indices"], arguments["per_sample_weights"]
    bag_N = _bag_of(index_N, arguments["offsets"], arguments["include_last_offset"])
    kept_N = _kept(index_N, weight_VD, arguments["padding_idx"])
    if arguments["mode"] == MAX:
        return _largest(y, weight_VD, bag_N, kept_N)
    factor_N = _factors(y, bag_N, kept_N, arguments["mode"], given)
    share_N = _share(weight_VD, index_N, -1, arguments["scale_grad_by_freq"])
    return _pool(y, weight_VD[index_N], factor_N if share_N is None else factor_N * share_N, bag_N)


def _bag_frozen(at: At, **arguments: Any) -> Outputs:
    """The largest at the rows where they are at the base point; else sums, a share of which moves with the weight."""
    y = at["y"]
    if not arguments["scale_grad_by_freq"]:
        return (_moved(y, arguments["weight"], arguments), *y[1:])
    still = _moved(y, at["weight"], {**arguments, "scale_grad_by_freq": False})
    return (still + _moved(y, arguments["weight"] - at["weight"], arguments), *y[1:])


def _bag_jvp(y: Outputs, t: Mapping[str, Tensor], **arguments: Any) -> Outputs:
    moved = _moved(y, t.get("weight", torch.zeros_like(arguments["weight"])), arguments)
    if "per_sample_weights" in t:
        plain = {**arguments, "per_sample_weights": t["per_sample_weights"], "scale_grad_by_freq": False}
        moved = moved + _moved(y, arguments["weight"], plain)
    return moved, torch.zeros_like(y[1]), torch.zeros_like(y[2]), torch.zeros_like(y[3])


@rules.vjp(aten.embedding_bag.padding_idx, nondiff=("indices", "offsets"), frozen=_bag_frozen, jvp=_bag_jvp)
def embedding_bag(
    g: Outputs,
    y: Outputs,
    weight_VD: Tensor,
    indices_N: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights_N: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None,
) -> Mapping[str, Tensor | None]:
    """y_b = Σ_n w_n weight[index_n]    dL/dweight[index_n] += w_n g_b      dL/dw_n = g_b · weight[index_n]     (n in b)

    The mean has w_n = 1 / size of the bag; the largest of each column is one entry, and its row gets g.
    """
    bag_N, kept_N = _bag_of(indices_N, offsets, include_last_offset), _kept(indices_N, weight_VD, padding_idx)
    rows_VD = torch.zeros_like(weight_VD)
    if mode == MAX:
        taken_BD = torch.where(_sizes(y, bag_N, kept_N)[:, None] > 0, g[0], 0)
        return {"weight": rows_VD.scatter_add(0, y[3], taken_BD)}
    g_ND = g[0][bag_N]
    factor_N = _factors(y, bag_N, kept_N, mode, per_sample_weights_N)
    share_N = _share(weight_VD, indices_N, -1, scale_grad_by_freq)
    scaled_ND = g_ND * (factor_N if share_N is None else factor_N * share_N)[:, None]
    by_weight = rows_VD.index_add(0, indices_N, scaled_ND)
    if per_sample_weights_N is None:
        return {"weight": by_weight}
    return {"weight": by_weight, "per_sample_weights": (g_ND * weight_VD[indices_N]).sum(1) * kept_N}
