"""The arithmetic of forward and backward: float64, float32, or bfloat16 or float16 products by autocast.

Weights, optimizer and loss stay in float32 with the short ones: a bfloat16 weight of 1 cannot move by less than 0.004, so
a layer norm would never learn. float16 ends at 65,504 and 6e-8, so that its gradients are scaled (Micikevicius et al. 2018,
1710.03740, section 3.2). `auto` chooses by measurement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from chainrule.train.config import Precision
from chainrule.train.engine import Batch, Loss, autograd

WORTHWHILE = 1.2
SMALL = 300_000
_REPEATS = 3
_SHORT: Mapping[str, torch.dtype] = MappingProxyType({"bfloat16": torch.bfloat16, "float16": torch.float16})


@dataclass(frozen=True)
class Choice:
    """A precision and why it was taken."""

    precision: Precision
    reason: str


def in_precision(loss: Loss, precision: Precision, device: torch.device) -> Loss:
    """The loss with its matrix products in bfloat16 or float16; the loss itself for other precisions."""
    short = _SHORT.get(precision)
    if short is None:
        return loss

    def loss_in_short(model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast(device.type, short):
            return loss(model, batch)

    return loss_in_short


def make_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """The scale of float16's gradients; one that does nothing for other precisions."""
    return GradScaler(device.type, enabled=precision == "float16")


def scaled(loss: Loss, scaler: GradScaler) -> Loss:
    """The loss times the scale; the loss itself if nothing is scaled."""
    if not scaler.is_enabled():
        return loss

    def scaled_loss(model: nn.Module, batch: Batch) -> Tensor:
        return scaler.scale(loss(model, batch))

    return scaled_loss


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
