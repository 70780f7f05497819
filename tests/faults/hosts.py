"""Small healthy models with their data, into which faults of statistics, numbers and equivalence are planted.

B batch, T tokens, D width, K classes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chainrule import Setup

Loss = Callable[[Any, Any], Tensor]
FEATURES, HIDDEN, CLASSES = 12, 24, 5


def seeded(make: Callable[[bool], Setup]) -> Callable[[bool], Setup]:
    """The builder with the same draws every time; the global generator is left as it was."""

    def build(broken: bool) -> Setup:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make(broken)

    return build


class Body(nn.Module):
    """Two hidden layers, the part that most faults are buried in."""

    def __init__(self, act: type[nn.Module] = nn.ReLU, width: int = HIDDEN) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, width), nn.Linear(width, width)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


class Net(nn.Module):
    """A body, a head, and what comes after the head."""

    def __init__(self, outputs: int = CLASSES, *, body: nn.Module | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body or Body()
        self.head = nn.Linear(HIDDEN, outputs)
        self.last = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.body(x)))


class CNN(nn.Module):
    """Two convolutions with pooling, then a linear classifier."""

    def __init__(self, act: type[nn.Module] = nn.ReLU, classes: int = CLASSES) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), act(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), act()
        )
        self.classifier = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, with dropout."""

    def __init__(self, width: int, heads: int = 2, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention; planted faults override it."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(D, 2))
        x = x + self.drop(self.out(self.attend(q, k, v).transpose(1, 2).reshape(B, T, D)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class LM(nn.Module):
    """A Transformer language model of two blocks."""

    def __init__(self, vocabulary: int = 17, width: int = 16, *, block: Callable[[int], nn.Module] = Block) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(block(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x = self.embed(ids_BT) + self.position(torch.arange(ids_BT.shape[1], device=ids_BT.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def classes(batch: int = 32, features: int = FEATURES, number: int = CLASSES) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, features), torch.arange(batch) % number


def images(batch: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, 8, 8), torch.arange(batch) % CLASSES


def numbers(batch: int = 32) -> tuple[Tensor, Tensor]:
    """Inputs and regression targets of unit size, shape (B,)."""
    return torch.randn(batch, FEATURES), torch.randn(batch)


def windows(batch: int = 4, length: int = 9, vocabulary: int = 17) -> tuple[Tensor, Tensor]:
    ids_BT = torch.randint(1, vocabulary, (batch, length + 1))
    return ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]).squeeze(-1), batch[1])


def next_token(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=-100)


def setup(model: nn.Module, loss: Loss, batch: Any, **more: Any) -> Setup:
    return Setup(model, loss, [batch], **more)
