"""The validation loss: the mean over tokens, always of the same windows, in the precision of training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from chainrule.data.windows import Windows
from chainrule.train.engine import Loss

BATCH = 32


@torch.no_grad()
def validation_loss(
    model: nn.Module, loss: Loss, windows: Windows, device: torch.device, at_most: int | None = None
) -> float:
    """Mean loss per token over all windows, or over `at_most` evenly spread ones. Leaves the model's mode as it was."""
    count = len(windows) if at_most is None else min(at_most, len(windows))
    chosen = np.arange(count, dtype=np.int64) * len(windows) // count
    was_training = model.training
    model.eval()
    try:
        total = 0.0
        for start in range(0, count, BATCH):
            indices = chosen[start : start + BATCH]
            total += float(loss(model, windows.batch(indices, device))) * len(indices)
    finally:
        model.train(was_training)
    return total / count
