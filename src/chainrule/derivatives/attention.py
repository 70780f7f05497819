"""Scaled dot-product attention, y = softmax(q kᵀ/√D + mask) v (Vaswani et al. 2017, section 3.2.1).

With scores s, probabilities p = softmax s and g = dL/dy the chain rule goes down one product at a time:

    dL/dv = pᵀ g                    dL/dp = g vᵀ                    dL/ds = p (dL/dp − Σ p dL/dp)
    dL/dq = dL/ds k/√D              dL/dk = (dL/ds)ᵀ q/√D

and Σ p dL/dp = Σ g y, a sum over V entries instead of S (Dao et al. 2022, appendix B.2). Scores are computed anew, a
block of query rows at a time: a causal mask hides half of them, and most of what it hides is never computed.
Shapes: N batch and heads together, T queries, S keys, D entries of a query, V entries of a value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules
from chainrule.errors import MissingRuleError

aten = torch.ops.aten
rules = Rules()

ROWS, ENTRIES = 128, 2**18  # queries in a block of causal attention; scores in a block, so that they stay in the cache


# --- the formula ------------------------------------------------------------------------------------------------------


def probabilities(q_NTD: Tensor, k_NSD: Tensor, mask_NTS: Tensor | None, is_causal: bool) -> Iterator[Any]:
    """(heads, rows, the keys they may see, p = softmax(q kᵀ + mask)), block by block; q comes scaled."""
    N, T, S = q_NTD.shape[0], q_NTD.shape[1], k_NSD.shape[1]
    height = min(ROWS, T) if is_causal else T
    depth = max(1, ENTRIES // max(1, height * S)) if q_NTD.is_cpu else max(N, 1)
    for first, start in itertools.product(range(0, N, depth), range(0, T, max(height, 1))):
        heads, rows = slice(first, first + depth), slice(start, min(start + height, T))
        keys = slice(0, min(rows.stop, S) if is_causal else S)
        s_NTS = q_NTD[heads, rows] @ k_NSD[heads, keys].mT
        if is_causal:
            ahead = s_NTS[:, :, start:]  # every row sees all keys before these
            ahead.masked_fill_(torch.ones(ahead.shape[1:], dtype=torch.bool, device=ahead.device).triu(1), -math.inf)
        if mask_NTS is None:
            yield heads, rows, keys, s_NTS.softmax(-1)
        else:
            yield (
                heads,
                rows,
                keys,
                masked_softmax(s_NTS, (mask_NTS[heads] if len(mask_NTS) > 1 else mask_NTS)[:, rows]),
            )


def masked_softmax(s_NTS: Tensor, mask_NTS: Tensor) -> Tensor:
    """softmax(s + mask); a query whose keys are all hidden attends to nothing, as in PyTorch."""
    s_NTS = s_NTS.masked_fill_(~mask_NTS, -math.inf) if mask_NTS.dtype == torch.bool else s_NTS.add_(mask_NTS)
    return s_NTS.softmax(-1).masked_fill_(s_NTS.amax(-1, keepdim=True) == -math.inf, 0)


def through_attention(
    g_NTV: Tensor, minus_NT1: Tensor, q_NTD: Tensor, k_NSD: Tensor, v_NSV: Tensor, blocks: Iterator[Any], whole: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dq, dL/dk, dL/dv and, if `whole` is asked for, dL/ds; minus = −Σ g y."""
    dq_NTD, dk_NSD, dv_NSV = torch.zeros_like(q_NTD), torch.zeros_like(k_NSD), torch.zeros_like(v_NSV)
    ds_NTS = g_NTV.new_zeros(*q_NTD.shape[:2], k_NSD.shape[1]) if whole else None
    for heads, rows, keys, p in blocks:
        g, q, k, v = g_NTV[heads, rows], q_NTD[heads, rows], k_NSD[heads, keys], v_NSV[heads, keys]
        ds = (g @ v.mT).add_(minus_NT1[heads, rows]).mul_(p)
        dq_NTD[heads, rows] = ds @ k
        dk_NSD[heads, keys] += ds.mT @ q
        dv_NSV[heads, keys] += p.mT @ g
        if ds_NTS is not None:
            ds_NTS[heads, rows, keys] = ds
    return dq_NTD, dk_NSD, dv_NSV, ds_NTS


# --- batch, heads and scale -------------------------------------------------------------------------------------------


def flat(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Batch shape, and q, k, v with batch and heads as one dimension. In grouped queries a key serves several heads."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])  # type: ignore[no-untyped-call]
    q_NTD, k_NSD, v_NSV = (
        x.expand(*batch, *x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:]) for x in (query, key, value)
    )
    return batch, q_NTD, k_NSD, v_NSV


def flat_mask(mask: Tensor | None, batch: tuple[int, ...], T: int, S: int) -> Tensor | None:
    """The mask with batch and heads as one dimension, of size 1 if all share it."""
    if mask is None:
        return None
    shared = math.prod(mask.shape[:-2]) == 1
    return mask.expand(*(mask.shape[:-2] if shared else batch), T, S).reshape(1 if shared else math.prod(batch), T, S)


def back_to(like: Tensor, dx_NSD: Tensor, batch: tuple[int, ...]) -> Tensor:
    """Undo `flat` for a gradient: the heads that a key serves are summed (broadcast dimensions are the engine's)."""
    dx = dx_NSD.reshape(*batch, *dx_NSD.shape[1:])
    if like.ndim > 2 and like.shape[-3] not in (1, dx.shape[-3]):
        dx = dx.unflatten(-3, (like.shape[-3], -1)).sum(-3)  # type: ignore[no-untyped-call]
    return dx


def scale_of(query: Tensor, scale: float | None) -> float:
    """1/√D unless given."""
    return query.shape[-1] ** -0.5 if scale is None else scale


def _refuse_dropout(dropout_p: float) -> None:
    if dropout_p:
        raise MissingRuleError(
            f"scaled_dot_product_attention with dropout_p = {dropout_p}: the mask is drawn inside the op, where no "
            "rule can see it. Set the attention's dropout to 0, or capture the graph, which draws the mask as a leaf."
        )


def _bound(g: Any, y: Any, **arguments: Any) -> dict[str, Any]:
    """|gradient| + √Σ(term)² of each sum on the way, since rounding errors do not conspire.

    p is rounded by the rounding of its scores, dL/ds also by that of g vᵀ and of Σ g y.
    """
    (batch, q, k, v), mask, scale, blocks = _read(arguments)
    g, y = ((part[0] if isinstance(part, tuple) else part).reshape(-1, q.shape[1], v.shape[2]) for part in (g, y))
    mean, mean_square = ((g * y).pow(n).sum(-1, keepdim=True) for n in (1, 2))
    q2, k2, v2, g2 = (x.square() for x in (q, k, v, g))
    true, square = ([torch.zeros_like(x) for x in (q, k, v)] for _ in range(2))
    of_mask = g.new_zeros(*q.shape[:2], k.shape[1]) if mask is not None and mask.is_floating_point() else None
    for heads, rows, keys, p in blocks():
        at_rows, at_keys = (heads, rows), (heads, keys)
        ds = p * (g[at_rows] @ v[at_keys].mT - mean[at_rows])
        p_size = p * (1 + (q2[at_rows] @ k2[at_keys].mT).sqrt())
        ds_size = ds.abs() + p_size * (g2[at_rows] @ v2[at_keys].mT + mean_square[at_rows]).sqrt()
        for sums, of_s, of_p, parts in ((true, ds, p, (q, k, g)), (square, ds_size**2, p_size**2, (q2, k2, g2))):
            sums[0][at_rows] = of_s @ parts[1][at_keys]
            sums[1][at_keys] += of_s.mT @ parts[0][at_rows]
            sums[2][at_keys] += of_p.mT @ parts[2][at_rows]
        if of_mask is not None:
            of_mask[heads, rows, keys] = ds_size
    sizes = [a.abs() + b.sqrt() for a, b in zip(true, square, strict=True)]
    names = ("query", "key", "value")
    bounds = {name: back_to(arguments[name], size, batch) for name, size in zip(names, sizes, strict=True)}
    bounds["query"] = bounds["query"] * abs(scale)
    return bounds if of_mask is None else {**bounds, "attn_mask": of_mask.reshape(*batch, *of_mask.shape[1:])}


def _jvp(y: Any, t: Mapping[str, Tensor], **arguments: Any) -> Any:
    """ẏ = ṗ v + p v̇,  ṗ = p (ṡ − Σ p ṡ),  ṡ = (q̇ kᵀ + q k̇ᵀ)/√D + mask tangent."""
    (batch, q, k, v), _, scale, blocks = _read(arguments)
    tangents = [t.get(name, torch.zeros_like(arguments[name])) for name in ("query", "key", "value")]
    _, dq, dk, dv = flat(tangents[0] * scale, tangents[1], tangents[2], arguments.get("enable_gqa", False))
    dm = (
        t["attn_mask"].expand(*batch, q.shape[1], k.shape[1]).reshape(-1, q.shape[1], k.shape[1])
        if "attn_mask" in t
        else None
    )
    moved = q.new_zeros(*q.shape[:2], v.shape[2])
    for heads, rows, keys, p in blocks():
        ds = dq[heads, rows] @ k[heads, keys].mT + q[heads, rows] @ dk[heads, keys].mT
        ds = ds if dm is None else ds + dm[heads, rows, keys]
        dp = p * (ds - (p * ds).sum(-1, keepdim=True))
        moved[heads, rows] = dp @ v[heads, keys] + p @ dv[heads, keys]
    dy = moved.reshape(*batch, *moved.shape[1:])
    return (dy, torch.zeros_like(y[1])) if isinstance(y, tuple) else dy


def _read(arguments: Mapping[str, Any]) -> tuple[Any, Tensor | None, float, Callable[[], Iterator[Any]]]:
    scale, mask = scale_of(arguments["query"], arguments["scale"]), arguments["attn_mask"]
    gqa = arguments.get("enable_gqa", False)
    batch, q, k, v = flat(arguments["query"] * scale, arguments["key"], arguments["value"], gqa)
    mask_NTS = flat_mask(mask, batch, q.shape[1], k.shape[1])
    return (batch, q, k, v), mask, scale, lambda: probabilities(q, k, mask_NTS, arguments["is_causal"])


# --- the rules --------------------------------------------------------------------------------------------------------


@rules.vjp(aten.scaled_dot_product_attention.default, abs_bound=_bound, jvp=_jvp, linear_in=("value",))
def scaled_dot_product_attention(
    g: Tensor,
    y: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> dict[str, Tensor]:
    """y = p v,  p = softmax(s),  s = q kᵀ/√D + mask        dL/dv = pᵀ g        dL/ds = p (g vᵀ − Σ g y)

    dL/dq = dL/ds k/√D        dL/dk = (dL/ds)ᵀ q/√D        dL/dmask = dL/ds
    """
    _refuse_dropout(dropout_p)
    scale = scale_of(query, scale)
    batch, q_NTD, k_NSD, v_NSV = flat(query * scale, key, value, enable_gqa)
    mask_NTS = flat_mask(attn_mask, batch, q_NTD.shape[1], k_NSD.shape[1])
    blocks = probabilities(q_NTD, k_NSD, mask_NTS, is_causal)
    g_NTV, minus_NT1 = g.reshape(-1, *g.shape[-2:]), -(g * y).sum(-1).reshape(-1, g.shape[-2], 1)
    whole = attn_mask is not None and attn_mask.is_floating_point()
    dq_NTD, dk_NSD, dv_NSV, ds_NTS = through_attention(g_NTV, minus_NT1, q_NTD, k_NSD, v_NSV, blocks, whole)
    gradients = {
        "query": back_to(query, dq_NTD.mul_(scale), batch),
        "key": back_to(key, dk_NSD, batch),
        "value": back_to(value, dv_NSV, batch),
    }
    if ds_NTS is not None:
        gradients["attn_mask"] = ds_NTS.reshape(*batch, *ds_NTS.shape[1:])
    return gradients


_FLASH = aten._scaled_dot_product_flash_attention_for_cpu.default


def _flash_frozen(at: Mapping[str, Any], **arguments: Any) -> tuple[Tensor, Tensor]:
    return _FLASH(**arguments)[0], at["y"][1]  # the log of the sum is there for backward's sake and carries no gradient


@rules.vjp(_FLASH, abs_bound=_bound, jvp=_jvp, frozen=_flash_frozen, nondiff=("attn_mask",))
def flash_attention_for_cpu(
    g: Any,
    y: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> dict[str, Tensor]:
    """y, log Σ exp s: as scaled_dot_product_attention        dL/dv = pᵀ g        dL/ds = p (g vᵀ − Σ g y)"""
    found = scaled_dot_product_attention(g[0], y[0], query, key, value, attn_mask, dropout_p, is_causal, scale, False)
    return {name: found[name] for name in ("query", "key", "value")}
