"""The arithmetic of forward and backward: float64, float32, or bfloat16 products by autocast; chosen by measurement.

Weights, optimizer and loss stay in float32 with bfloat16: a bfloat16 weight of 1 cannot move by less than 0.004, so a
layer norm would never learn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chainrule.train.config import Precision
from chainrule.train.engine import Batch, Loss, autograd

WORTHWHILE = 1.2
SMALL = 300_000
_REPEATS = 3


@dataclass(frozen=True)
class Choice:
    """A precision and why it was taken."""

    precision: Precision
    reason: str


def in_precision(loss: Loss, precision: Precision, device: torch.device) -> Loss:
    """The loss with its matrix products in bfloat16; the loss itself for other precisions."""
    if precision != "bfloat16":
        return loss

    def loss_bfloat16(model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss(model, batch)

    return loss_bfloat16


def choose_precision(model: nn.Module, loss: Loss, batch: Batch, device: torch.device) -> Choice:
    """Time forward and backward in float32 and in bfloat16; bfloat16 must win by a fifth.

    Leaves no gradients. The caller keeps the random state.
    """
    entries = sum(parameter.numel() for parameter in model.parameters())
    if entries < SMALL:
        return Choice("float32", f"auto: too small to gain from bfloat16 ({entries:,} parameters)")
    plain = _seconds(model, loss, batch, device)
    short = _seconds(model, in_precision(loss, "bfloat16", device), batch, device)
    figures = f"{short * 1e3:.0f} ms forward and backward, float32 {plain * 1e3:.0f} ms"
    if short * WORTHWHILE < plain:
        return Choice("bfloat16", f"auto: {plain / short:.1f} times faster here ({figures})")
    return Choice("float32", f"auto: bfloat16 is not {WORTHWHILE:g} times faster here ({figures})")


def _seconds(model: nn.Module, loss: Loss, batch: Batch, device: torch.device) -> float:
    """The best of a few passes, after one that warms up."""
    times = []
    for _ in range(1 + _REPEATS):
        start = time.perf_counter()
        autograd(model, loss, batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return min(times[1:])
