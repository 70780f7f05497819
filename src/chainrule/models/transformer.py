"""A GPT-2-like Transformer language model (decoder only), written to be read beside the paper.

    B batch, T tokens, D width (hidden), N heads, K width of a head (D / N), M width of the MLP (4 D), V vocabulary

Pre-norm blocks, learned positions, GELU (tanh form), initialised as in Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", section 2.3; attention as in Vaswani et al. 2017, "Attention Is All You Need", eq. 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Causal self-attention: each token mixes the values of itself and of earlier tokens.

    The formula is written out, because its parts are then nodes of the graph; on a CPU with bfloat16 it is also the
    fast form: the backward of the fused `scaled_dot_product_attention` takes three times as long at T = 128.
    """

    future: Tensor

    def __init__(self, hidden: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.dropout = dropout_layer(dropout)
        future_TT = torch.ones(context, context, dtype=torch.bool).triu(1)
        self.register_buffer("future", future_TT, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend: (B, T, D) to (B, T, D)."""
        B, T, D = x_BTD.shape
        q_BNTK = self.split(self.query(x_BTD))
        k_BNTK = self.split(self.key(x_BTD))
        v_BNTK = self.split(self.value(x_BTD))
        scores_BNTT = q_BNTK @ k_BNTK.transpose(-2, -1) / math.sqrt(D // self.heads)
        scores_BNTT = scores_BNTT.masked_fill(self.future[:T, :T], -math.inf)
        weights_BNTT = self.dropout(scores_BNTT.softmax(dim=-1))
        mixed_BTNK = (weights_BNTT @ v_BNTK).transpose(1, 2)
        y_BTD: Tensor = self.output(mixed_BTNK.reshape(B, T, D))
        return y_BTD

    def split(self, x_BTD: Tensor) -> Tensor:
        """Cut D into heads: (B, T, D) to (B, N, T, K)."""
        B, T, D = x_BTD.shape
        return x_BTD.view(B, T, self.heads, D // self.heads).transpose(1, 2)


class MLP(nn.Module):
    """Two linear maps with a GELU between; each token by itself."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden, 4 * hidden)
        self.contract = nn.Linear(4 * hidden, hidden)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each token by itself: (B, T, D) to (B, T, D)."""
        h_BTM = F.gelu(self.expand(x_BTD), approximate="tanh")
        y_BTD: Tensor = self.contract(h_BTM)
        return y_BTD


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream and each behind a layer norm."""

    def __init__(self, hidden: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads, context, dropout)
        self.mlp_norm = nn.LayerNorm(hidden)
        self.mlp = MLP(hidden)
        self.dropout = dropout_layer(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Add attention, then MLP: (B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
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
        dropout: float = 0.0,
        tied: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        """`generator` (on the CPU) draws the initial weights; None = torch's global one."""
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(context, hidden)
        self.dropout = dropout_layer(dropout)
        self.blocks = nn.ModuleList(Block(hidden, heads, context, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        initialise(self, layers, generator)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the token that follows each token: (B, T) to (B, T, V)."""
        T = tokens_BT.shape[1]
        position_T = torch.arange(T, device=tokens_BT.device)
        x_BTD = self.dropout(self.tokens(tokens_BT) + self.positions(position_T))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV


def dropout_layer(probability: float) -> nn.Module:
    """Dropout, or nothing at all: without dropout there is no random node in the graph."""
    return nn.Dropout(probability) if probability > 0 else nn.Identity()


@torch.no_grad()
def initialise(model: nn.Module, layers: int, generator: torch.Generator | None) -> None:
    """Draw weights from N(0, 0.02²), set biases to 0; what ends in the residual stream is smaller by sqrt(2 L).

    Each of the 2 L sums of the residual stream adds variance: the factor keeps their total independent of depth.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim >= 2:
            residual = name.endswith(("attention.output.weight", "mlp.contract.weight"))
            parameter.normal_(0.0, 0.02 / math.sqrt(2 * layers) if residual else 0.02, generator=generator)


def next_token_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean of -log p(next token) over all tokens of the batch, in nats. batch: "tokens" (B, T), "targets" (B, T)."""
    logits_BTV: Tensor = model(batch["tokens"])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())
