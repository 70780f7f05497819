"""The four-layer transformer in which faults are planted: every unit formula sits in a module of its own.

B batch, T tokens (odd, for faults of odd sizes), D width, H heads, K head width, V vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from faults.backward import formulas
from faults.backward.formula import Formula, widened

B, T, D, HEADS, HIDDEN, V, LAYERS = 4, 7, formulas.D_MODEL, 2, 24, 23, 4


class Hosted(nn.Module):
    """A module that computes one formula by torch's own function, or by a custom Function planted here."""

    def __init__(self, formula: Formula, *parameters: tuple[str, Tensor]) -> None:
        super().__init__()
        self.formula = formula
        self.function: type[Function] | None = None
        self.names = [name for name, _ in parameters]
        for name, value in parameters:
            setattr(self, name, nn.Parameter(value))

    def own(self) -> list[Tensor]:
        return [getattr(self, name) for name in self.names]

    def forward(self, *inputs: Tensor) -> Any:
        if self.function is None:
            return self.formula.stock(*inputs, *self.own())
        return self.function.apply(*inputs, *self.own())


def linear(inner: int, outer: int) -> Hosted:
    weight, bias = torch.randn(outer, inner) / inner**0.5, torch.randn(outer) * 0.1
    return Hosted(formulas.LINEAR, ("weight", weight), ("bias", bias))


def norm() -> Hosted:
    weight, bias = 1 + torch.randn(D) * 0.1, torch.randn(D) * 0.1
    return Hosted(formulas.LAYER_NORM, ("weight", weight), ("bias", bias))


class Core(Hosted):
    """Causal attention: fused as torch does it or as one planted Function, or written out as softmax and blend."""

    def __init__(self, written_out: bool) -> None:
        super().__init__(formulas.ATTENTION)
        self.softmax = Hosted(formulas.SOFTMAX) if written_out else None
        self.blend = Hosted(formulas.BLEND) if written_out else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.softmax is None or self.blend is None:
            return super().forward(q, k, v)
        scores_BHTT = q @ k.mT / q.shape[-1] ** 0.5
        future_TT = torch.ones(scores_BHTT.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        return self.blend(self.softmax(scores_BHTT.masked_fill(future_TT, -torch.inf)), v)


class Attention(nn.Module):
    def __init__(self, written_out: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (linear(D, D) for _ in range(4))
        self.core = Core(written_out)

    def forward(self, x_BTD: Tensor) -> Tensor:
        heads = (f(x_BTD).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.out(self.core(*heads).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Gated: down(dropout(act(left) · right)). With `chunks` the activation runs on parts of the batch in turn."""

    def __init__(self, act: Formula, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.up, self.down = linear(D, 2 * HIDDEN), linear(HIDDEN, D)
        self.split, self.act = Hosted(formulas.SPLIT), Hosted(act)
        self.gate, self.drop = Hosted(formulas.GATE), Hosted(formulas.DROPOUT)

    def forward(self, x_BTD: Tensor) -> Tensor:
        left, right = self.split(self.up(x_BTD))
        left = torch.cat([self.act(part) for part in left.chunk(self.chunks)]) if self.chunks > 1 else self.act(left)
        return self.down(self.drop(self.gate(left, right)))


class Block(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.shift, self.norm1, self.norm2 = Hosted(formulas.SHIFT), norm(), norm()
        self.attention = Attention(written_out=index % 2 == 1)
        self.mlp = MLP(formulas.RELU if index == 1 else formulas.GELU, chunks=2 if index == 3 else 1)
        self.scale = Hosted(formulas.SCALE, ("weight", 1 + torch.randn(D) * 0.2))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(self.shift(x_BTD)))
        return x_BTD + self.scale(self.mlp(self.norm2(x_BTD)))


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = Hosted(formulas.EMBEDDING)
        self.embed.table = nn.Parameter(torch.randn(V, D))
        self.position = Hosted(formulas.POSITION, ("table", torch.randn(T, D) * 0.3))
        self.blocks = nn.ModuleList(Block(index) for index in range(LAYERS))
        self.norm, self.head = norm(), linear(D, V)
        self.criterion = Hosted(formulas.CROSS_ENTROPY)

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = self.position(self.embed(self.embed.table, ids_BT))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_NV = self.head(self.norm(x_BTD)).flatten(0, 1)
        return self.criterion(widened(logits_NV), targets_BT.flatten())


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The host computes its own loss."""
    return model(*batch)


def host(dtype: torch.dtype, seed: int) -> tuple[Host, tuple[Tensor, Tensor]]:
    """(model, batch): the same numbers for every dtype; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Host()
        ids_BT, targets_BT = torch.randint(1, V, (B, T)), torch.randint(1, V, (B, T))
    ids_BT[0, :2] = formulas.PAD  # padding on the left, where later positions look at it
    ids_BT[1, 3:5] = ids_BT[2, 0]  # repeated tokens
    targets_BT[0, :3] = formulas.PAD
    return model.to(dtype), (ids_BT, targets_BT)
