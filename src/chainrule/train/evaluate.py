"""The validation loss: the mean over terms, always of the same examples, in the precision of training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from chainrule.train.engine import Batch, Loss
from chainrule.train.task import Task

BATCH = 32


@torch.no_grad()
def validation_loss(
    model: nn.Module, loss: Loss, task: Task, device: torch.device, at_most: int | None = None
) -> float:
    """Mean loss per term over all examples, or over `at_most` evenly spread ones. Leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    try:
        total, terms = 0.0, 0
        for batch in validation_batches(task, device, at_most):
            if n := task.count(batch):
                total += float(loss(model, batch)) * n
                terms += n
    finally:
        model.train(was_training)
    return total / max(1, terms)


def validation_batches(task: Task, device: torch.device, at_most: int | None = None) -> Iterator[Batch]:
    """The validation examples, or `at_most` evenly spread ones, in order."""
    available = len(task.validation)
    count = available if at_most is None else min(at_most, available)
    chosen = np.arange(count, dtype=np.int64) * available // max(1, count)
    size = max(BATCH, task.micro_batch_size)
    for start in range(0, count, size):
        yield task.validation.batch(chosen[start : start + size], device)
