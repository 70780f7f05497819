"""Small classifiers and their batches, on which optimizers and loops are tried."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x_BD):
        return self.linear(self.norm(x_BD))


class Classifier(nn.Module):
    """An MLP with a norm, a little deeper than one layer."""

    def __init__(self, inputs=8, width=16, classes=4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.head = Head(width, classes)

    def forward(self, x_BD):
        return self.head(self.body(x_BD))


def loss(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def batches(count=4, size=8, inputs=8, classes=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, inputs, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def classifier(**sizes):
    torch.manual_seed(0)
    return Classifier(**sizes)
