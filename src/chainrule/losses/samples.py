"""Predictions as an untrained model makes them and targets of a kind: what a loss is examined on where no model is given."""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.losses.entry import Kind
from chainrule.losses.targets import Targets

EXAMPLES = 16
CLASSES = 4
ROWS = 256  # of a column: enough for every class that matters


def untrained(kind: Kind, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(prediction, target) in float32: standard normal predictions and targets drawn independently of them.

    numbers  (B) and standard normal (B);  counts  (B) and Poisson numbers of mean 3 (B)
    binary   (B) logits and zeros and ones (B) as floats;  classes  (B, C) logits and class numbers (B)
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "classes":
        return torch.randn(EXAMPLES, CLASSES, generator=generator), torch.arange(EXAMPLES) % CLASSES
    prediction = torch.randn(EXAMPLES, generator=generator)
    if kind == "binary":
        return prediction, (torch.arange(EXAMPLES) % 2).float()
    if kind == "counts":
        return prediction, torch.poisson(torch.full((EXAMPLES,), 3.0), generator=generator)
    return prediction, torch.randn(EXAMPLES, generator=generator)


def untrained_on(targets: Targets, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(prediction, target) for the first rows of a column; numbers are standardised, as training does."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.from_numpy(targets.values)
    if targets.kind == "numbers":
        target = (target - target.mean()) / target.std()
    target = target[torch.randperm(len(target), generator=generator)[:ROWS]]
    if targets.kind == "classes":
        return torch.randn(len(target), len(targets.labels), generator=generator), target.long()
    return torch.randn(len(target), generator=generator), target.float()
