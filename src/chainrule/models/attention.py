"""Causal self-attention: each token mixes the values of itself and of the earlier tokens that it may see.

    B batch, T queries, S keys, D width (hidden), N heads, G key-value heads, K width of a head (D / N)

    y = softmax(q kᵀ / sqrt(K)) v        Vaswani et al. 2017, "Attention Is All You Need", eq. 1

With G < N each key-value head serves N / G query heads: Ainslie et al. 2023, "GQA", section 2.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.models.cache import LayerCache
from chainrule.models.dropout import dropout_layer
from chainrule.models.positions import rotate

SHORT = 128
LONG = 512


class Sight(NamedTuple):
    """What the tokens of a batch may see, and where they stand; alike for all layers.

    blocked  keys that a query must not see: (T, S) or (B, 1, T, S); None = none, but with `fused` exactly the future
    turn     cos and sin of the rotary positions; None = positions are added to the tokens
    fused    take torch's fused kernel
    """

    blocked: Tensor | None
    turn: tuple[Tensor, Tensor] | None = None
    fused: bool = False


class Attention(nn.Module):
    """Queries, keys and values by linear maps, attention, and a linear map back into the residual stream."""

    def __init__(self, hidden: int, heads: int, key_value_heads: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        if hidden % heads or heads % key_value_heads:
            raise ValueError(
                f"{hidden} hidden, {heads} heads, {key_value_heads} key-value heads: each must be a multiple of the next"
            )
        self.head_width = hidden // heads
        self.query = nn.Linear(hidden, hidden, bias=bias)
        self.key = nn.Linear(hidden, key_value_heads * self.head_width, bias=bias)
        self.value = nn.Linear(hidden, key_value_heads * self.head_width, bias=bias)
        self.output = nn.Linear(hidden, hidden, bias=bias)
        self.dropout = dropout_layer(dropout)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        """Attend: (B, T, D) to (B, T, D)."""
        q_BNTK = self.split(self.query(x_BTD))
        k_BGSK = self.split(self.key(x_BTD))
        v_BGSK = self.split(self.value(x_BTD))
        if sight.turn is not None:
            q_BNTK, k_BGSK = rotate(q_BNTK, *sight.turn), rotate(k_BGSK, *sight.turn)
        if cache is not None:
            k_BGSK, v_BGSK = cache.extend(k_BGSK, v_BGSK)
        k_BNSK, v_BNSK = shared(k_BGSK, q_BNTK.shape[1]), shared(v_BGSK, q_BNTK.shape[1])
        if sight.fused:
            mixed_BNTK = attend_fused(q_BNTK, k_BNSK, v_BNSK, sight.blocked, self.dropout)
        else:
            mixed_BNTK = attend(q_BNTK, k_BNSK, v_BNSK, sight.blocked, self.dropout)
        y_BTD: Tensor = self.output(mixed_BNTK.transpose(1, 2).flatten(2))
        return y_BTD

    def split(self, x_BTD: Tensor) -> Tensor:
        """Cut the last dimension into heads: (B, T, N K) to (B, N, T, K)."""
        B, T, _ = x_BTD.shape
        return x_BTD.view(B, T, -1, self.head_width).transpose(1, 2)


def attend(q_BNTK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, blocked: Tensor | None, dropout: nn.Module) -> Tensor:
    """The formula written out: its parts are nodes of the graph, and its dropout mask can be seen.

    The queries are divided, not the scores, of which there are S / K times as many; and -∞ is added, not filled in: a sum
    takes one pass forward and none backward.
    """
    scores_BNTS = q_BNTK / math.sqrt(q_BNTK.shape[-1]) @ k_BNSK.transpose(-2, -1)
    if blocked is not None:
        scores_BNTS = scores_BNTS + torch.zeros_like(blocked, dtype=scores_BNTS.dtype).masked_fill(blocked, -math.inf)
    weights_BNTS = dropout(scores_BNTS.softmax(dim=-1))
    y_BNTK: Tensor = weights_BNTS @ v_BNSK
    return y_BNTK


def attend_fused(q_BNTK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, blocked: Tensor | None, dropout: nn.Module) -> Tensor:
    """The same by torch's fused kernel, which keeps no T x T matrix; blocked None = exactly the future."""
    probability = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    return F.scaled_dot_product_attention(
        q_BNTK,
        k_BNSK,
        v_BNSK,
        attn_mask=None if blocked is None else ~blocked,
        is_causal=blocked is None,
        dropout_p=probability,
    )


def shared(x_BGSK: Tensor, heads: int) -> Tensor:
    """Give each query head the key-value head of its group: (B, G, S, K) to (B, N, S, K)."""
    groups = x_BGSK.shape[1]
    return x_BGSK if groups == heads else x_BGSK.repeat_interleave(heads // groups, dim=1)


def fused_is_faster(device: torch.device, dtype: torch.dtype, length: int, dropout: float) -> bool:
    """Whether the fused kernel takes less time, forward and backward, than the formula written out.

    On a CPU (6 heads of 64, one thread) it takes, of the time of the formula written out,

        T          128   256   512  1024  2048
        float32   0.78  0.69  0.52  0.48  0.28
        bfloat16  3.31  1.94  1.10  0.69  0.58

    and with dropout it is slow. Where it wins little the parts are worth more: each can be seen and proved.
    """
    if device.type == "cuda":
        return dtype != torch.float64
    return dropout == 0 and length > (SHORT if dtype == torch.float32 else LONG)
