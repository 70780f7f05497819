"""Healthy language models: GPT in several writings, Llama-like, tied embeddings, mixtures of experts.

B batch, T tokens, D model, H heads, K head width, V vocabulary, E experts, N = B·T rows
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.case import Built, tokens


class Attention(nn.Module):
    """Causal self-attention, fused (`scaled_dot_product_attention`) or written out with a mask of -inf."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, explicit: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.explicit = heads, dropout, explicit
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.ones(64, 64, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(x_BTD).split(D, dim=2))
        y_BHTK = self.written_out(q, k, v) if self.explicit else self.fused(q, k, v)
        return self.out(y_BHTK.transpose(1, 2).reshape(B, T, D))

    def fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)

    def written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[-2]
        scores_BHTT = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        weights_BHTT = scores_BHTT.masked_fill(self.mask[:T, :T], float("-inf")).softmax(dim=-1)
        return F.dropout(weights_BHTT, self.dropout, self.training) @ v


class Block(nn.Module):
    def __init__(self, width: int, heads: int, *, dropout: float, explicit: bool, act: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout=dropout, explicit=explicit)
        mlp = (nn.Linear(width, 4 * width), act, nn.Linear(4 * width, width), nn.Dropout(dropout))
        self.mlp = nn.Sequential(*mlp)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD))
        return x_BTD + self.mlp(self.norm2(x_BTD))


class GPT(nn.Module):
    """Pre-norm decoder with learned positions. `remat` recomputes each block in the backward pass."""

    def __init__(
        self,
        vocabulary: int = 61,
        length: int = 12,
        width: int = 32,
        layers: int = 2,
        heads: int = 4,
        *,
        dropout: float = 0.0,
        explicit: bool = False,
        act: nn.Module | None = None,
        remat: bool = False,
    ) -> None:
        super().__init__()
        self.remat = remat
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.drop = nn.Dropout(dropout)
        kind: dict[str, Any] = {"dropout": dropout, "explicit": explicit, "act": act or nn.GELU(approximate="tanh")}
        self.blocks = nn.ModuleList(Block(width, heads, **kind) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        x_BTD = self.drop(self.token(ids_BT) + self.position(positions_T))
        for block in self.blocks:
            x_BTD = checkpoint(block, x_BTD, use_reentrant=False) if self.remat else block(x_BTD)
        return self.head(self.norm(x_BTD))


def next_token(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross entropy of the next token."""
    ids_BT, targets_BT = batch
    logits_BTV = model(ids_BT)
    return F.cross_entropy(logits_BTV.view(-1, logits_BTV.shape[-1]), targets_BT.view(-1))


def gpt() -> Built:
    return GPT(), next_token, tokens(3, 12, 61)


def gpt_dropout() -> Built:
    return GPT(dropout=0.2), next_token, tokens(3, 12, 61)


def gpt_explicit() -> Built:
    return GPT(explicit=True, act=nn.GELU()), next_token, tokens(3, 12, 61)


def gpt_explicit_dropout() -> Built:
    return GPT(explicit=True, dropout=0.1, act=nn.ReLU()), next_token, tokens(3, 12, 61)


def gpt_checkpoint() -> Built:
    return GPT(remat=True), next_token, tokens(3, 12, 61)


class RMSNorm(nn.Module):
    """As in Llama's code: statistics in float32 whatever the input's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x32_BTD = x_BTD.float()
        x32_BTD = x32_BTD * torch.rsqrt(x32_BTD.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * x32_BTD.to(x_BTD.dtype)


@torch.no_grad()
def rotary(length: int, width: int) -> tuple[Tensor, Tensor]:
    """cos_TK and sin_TK of rotary positions (Su et al. 2021, equation 15), in float32."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
    angles_TK = (torch.arange(length).float()[:, None] * frequencies).repeat(1, 2)
    return angles_TK.cos(), angles_TK.sin()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    left, right = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos_TK + torch.cat((-right, left), dim=-1) * sin_TK


class LlamaBlock(nn.Module):
    """Grouped-query attention with rotary positions, SwiGLU."""

    def __init__(self, width: int, heads: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.groups, self.k = heads, groups, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, groups * self.k, bias=False)
        self.value = nn.Linear(width, groups * self.k, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def attend(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q = self.query(x_BTD).view(B, T, self.heads, self.k).transpose(1, 2)
        k = self.key(x_BTD).view(B, T, self.groups, self.k).transpose(1, 2)
        v = self.value(x_BTD).view(B, T, self.groups, self.k).transpose(1, 2)
        cos_TK, sin_TK = rotary(T, self.k)
        q, k = rotate(q, cos_TK, sin_TK).to(v.dtype), rotate(k, cos_TK, sin_TK).to(v.dtype)
        k, v = (t.repeat_interleave(self.heads // self.groups, dim=1) for t in (k, v))
        y_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y_BHTK.transpose(1, 2).reshape(B, T, D))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attend(self.norm1(x_BTD))
        y_BTD = self.norm2(x_BTD)
        return x_BTD + self.down(F.silu(self.gate(y_BTD)) * self.up(y_BTD))


class Llama(nn.Module):
    def __init__(self, vocabulary: int = 61, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaBlock(width, 4, 2, 48) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.embed(ids_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.norm(x_BTD)).float()


def llama_like() -> Built:
    return Llama(), next_token, tokens(2, 10, 61)


class TiedLM(nn.Module):
    """Output weights are the embedding's; row 0 is padding; positions are fixed sines."""

    def __init__(self, vocabulary: int = 50, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, 3, 48, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.head.weight = self.embed.weight
        cos_TK, sin_TK = rotary(16, width)
        self.register_buffer("waves", torch.cat((cos_TK[:, : width // 2], sin_TK[:, : width // 2]), dim=1))

    def forward(self, ids_BT: Tensor) -> Tensor:
        T = ids_BT.shape[1]
        mask_TT = nn.Transformer.generate_square_subsequent_mask(T, dtype=self.waves.dtype)
        x_BTD = self.embed(ids_BT) * math.sqrt(self.embed.embedding_dim) + self.waves[:T]
        return self.head(self.encoder(x_BTD, mask=mask_TT, is_causal=True))


def smoothed_next_token(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits_BTV = model(batch["ids"])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten(), ignore_index=0, label_smoothing=0.1)


def tied_lm() -> Built:
    model = TiedLM()
    ids_BT, targets_BT = tokens(3, 9, 50)
    ids_BT[0, 6:], targets_BT[0, 5:] = 0, 0
    return model, smoothed_next_token, {"ids": ids_BT, "targets": targets_BT}


class Experts(nn.Module):
    """Top-2 of E experts; all experts run on all rows, the gates pick."""

    def __init__(self, width: int, experts: int = 4, hidden: int = 24) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / math.sqrt(hidden))

    def route(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chance_NE = self.router(x_ND).softmax(-1)
        top, index = chance_NE.topk(2, dim=-1)
        gate_NE = torch.zeros_like(chance_NE).scatter(-1, index, top / top.sum(-1, keepdim=True))
        used_E = (gate_NE > 0).to(x_ND.dtype).mean(0)
        balance = chance_NE.shape[-1] * (used_E * chance_NE.mean(0)).sum()
        return gate_NE, balance, index

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        gate_NE, balance, _ = self.route(x_ND)
        hidden_ENH = F.silu(torch.einsum("nd,edh->enh", x_ND, self.up))
        return torch.einsum("enh,ehd,ne->nd", hidden_ENH, self.down, gate_NE), balance


class SparseExperts(Experts):
    """The same, but each expert runs on its own rows only: shapes depend on data."""

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        gate_NE, balance, index = self.route(x_ND)
        y_ND = torch.zeros_like(x_ND)
        for e in range(gate_NE.shape[-1]):
            rows = (index == e).any(-1).nonzero().squeeze(-1)
            h = F.silu(x_ND[rows] @ self.up[e]) @ self.down[e]
            y_ND = y_ND.index_add(0, rows, h * gate_NE[rows, e, None])
        return y_ND, balance


class ExpertLM(nn.Module):
    def __init__(self, experts: Experts, vocabulary: int = 40, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.norm = nn.RMSNorm(width)
        self.experts = experts
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        x_ND = self.embed(ids_BT).flatten(0, 1)
        y_ND, balance = self.experts(self.norm(x_ND))
        return self.head(x_ND + y_ND), balance


def balanced_next_token(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    logits_NV, balance = model(batch[0])
    return F.cross_entropy(logits_NV, batch[1].flatten()) + 0.01 * balance


def experts() -> Built:
    return ExpertLM(Experts(16)), balanced_next_token, tokens(3, 8, 40)


def experts_sparse() -> Built:
    return ExpertLM(SparseExperts(16)), balanced_next_token, tokens(3, 8, 40)
