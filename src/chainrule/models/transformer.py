"""A Transformer language model (decoder only), GPT-2-like or Llama-like, written to be read beside the papers.

B batch, T tokens, D width (hidden), V vocabulary

GPT-2   layer norm, learned positions, plain MLP with GELU, biases: Radford et al. 2019, "Language Models are
        Unsupervised Multitask Learners", section 2.3 (the defaults)
Llama   RMS norm, rotary positions, gated MLP with SiLU, shared key-value heads, no biases: Touvron et al. 2023,
        "LLaMA", section 2.2, and "Llama 2", section 2.2
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chainrule.models.activations import Activation, gelu_tanh
from chainrule.models.attention import Attention, Sight, fused_is_faster
from chainrule.models.cache import Cache, LayerCache
from chainrule.models.dropout import dropout_layer
from chainrule.models.feed_forward import GatedMLP, PlainMLP, default_width
from chainrule.models.initialisation import Initialiser, gpt2_scaled, initialise
from chainrule.models.masks import future, future_or_foreign, positions_within
from chainrule.models.normalization import Norm, layer_norm
from chainrule.models.positions import Positions, RotaryPositions, SinusoidalPositions


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream and each behind a norm."""

    def __init__(
        self, attention_norm: nn.Module, attention: Attention, mlp_norm: nn.Module, mlp: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.dropout = dropout_layer(dropout)

    def forward(self, x_BTD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        """Add attention, then MLP: (B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), sight, cache))
        y_BTD: Tensor = x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))
        return y_BTD


class Transformer(nn.Module):
    """The language model: token ids (B, T) to logits of the next token (B, T, V)."""

    def __init__(
        self,
        *,
        vocabulary: int,
        layers: int,
        heads: int,
        hidden: int,
        context: int,
        key_value_heads: int | None = None,
        mlp_width: int | None = None,
        positions: Positions = "learned",
        rotary_base: float = 10_000.0,
        norm: Norm = layer_norm,
        epsilon: float = 1e-5,
        gated: bool = False,
        activation: Activation = gelu_tanh,
        bias: bool = True,
        tied: bool = True,
        dropout: float = 0.0,
        recompute: bool = False,
        initialiser: Initialiser = gpt2_scaled,
        generator: torch.Generator | None = None,
    ) -> None:
        """`generator` (on the CPU) draws the initial weights; None = torch's global one.

        recompute  keep only the inputs of each block for the backward pass and run it again there: less memory for a
                   third more time (Chen et al. 2016, 1604.06174)
        """
        super().__init__()
        width = mlp_width or default_width(hidden, gated=gated)

        def block() -> Block:
            attention = Attention(hidden, heads, key_value_heads or heads, bias=bias, dropout=dropout)
            mlp = (GatedMLP if gated else PlainMLP)(hidden, width, activation, bias=bias)
            return Block(norm(hidden, epsilon, bias), attention, norm(hidden, epsilon, bias), mlp, dropout)

        self.context = context
        self.recompute = recompute
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.positions = _added(positions, context, hidden)
        self.rotary = RotaryPositions(context, hidden // heads, rotary_base) if positions == "rotary" else None
        self.scale = math.sqrt(hidden) if positions == "sinusoidal" else 1.0
        self.dropout = dropout_layer(dropout)
        self.blocks = nn.ModuleList(block() for _ in range(layers))
        self.norm = norm(hidden, epsilon, bias)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        initialise(self, layers, initialiser, generator)

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits of the token that follows each token: (B, T) to (B, T, V).

        documents_BT  numbers the document of each token of a packed row: none is seen from another, and positions
                      count from each document's beginning; None = each row is one text
        cache         what was read before; tokens_BT goes on from there
        """
        sight, position = self._sight(tokens_BT, documents_BT, cache)
        x_BTD = self._embed(tokens_BT, position)
        for number, block in enumerate(self.blocks):
            if self.recompute and self.training and cache is None:
                x_BTD = checkpoint(block, x_BTD, sight, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, sight, cache.layer(number) if cache is not None else None)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV

    def _embed(self, tokens_BT: Tensor, position: Tensor) -> Tensor:
        """Tokens and positions to vectors; beside sinusoids tokens are scaled by sqrt(D) (Vaswani et al., 3.4)."""
        x_BTD = self.tokens(tokens_BT)
        if self.scale != 1:
            x_BTD = x_BTD * self.scale
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(position)
        y_BTD: Tensor = self.dropout(x_BTD)
        return y_BTD

    def _sight(self, tokens_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None) -> tuple[Sight, Tensor]:
        """What each token sees, and its position: (T) or (B, T)."""
        T, seen, device = tokens_BT.shape[1], cache.length if cache is not None else 0, tokens_BT.device
        fused = cache is None and fused_is_faster(device, self._dtype(device), T, self._dropped())
        if documents_BT is not None:
            blocked_BTT = future_or_foreign(documents_BT)
            position_BT = positions_within(blocked_BTT)
            return Sight(blocked_BTT[:, None], self._turn(position_BT), fused), position_BT
        position_T = torch.arange(seen, seen + T, device=device)
        blocked_TS = None if fused else future(T, seen + T, device)
        return Sight(blocked_TS, self._turn(position_T), fused), position_T

    def _turn(self, position: Tensor) -> tuple[Tensor, Tensor] | None:
        return self.rotary(position) if self.rotary is not None else None

    def _dtype(self, device: torch.device) -> torch.dtype:
        """The dtype of matrix products."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.tokens.weight.dtype

    def _dropped(self) -> float:
        return self.dropout.p if self.training and isinstance(self.dropout, nn.Dropout) else 0.0


def _added(positions: Positions, context: int, hidden: int) -> nn.Module | None:
    """What makes the vectors that are added to the tokens; None if nothing is added."""
    if positions == "learned":
        return nn.Embedding(context, hidden)
    return SinusoidalPositions(context, hidden) if positions == "sinusoidal" else None


def next_token_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean of -log p(next token) over all tokens of the batch, in nats; the batch as `next_token_logits` takes it."""
    logits_NV, targets_N = next_token_logits(model, batch)
    return F.cross_entropy(logits_NV, targets_N)


def next_token_logits(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(logits (N, V), targets (N)) of all N = B T tokens of a batch, one window after the other.

    batch: "tokens" (B, T), "targets" (B, T), and for packed rows "documents" (B, T).
    """
    packed = (batch["documents"],) if "documents" in batch else ()
    logits_BTV: Tensor = model(batch["tokens"], *packed)
    return logits_BTV.flatten(0, 1), batch["targets"].flatten()
