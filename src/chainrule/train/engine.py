"""Who computes the gradient: the engine's contract, and the engine that every torch user has.

An engine is called as `engine(model, loss, batch)`, evaluates loss(model, batch), ADDS the gradient to `.grad` of every
trainable parameter, as `backward` does, and returns the loss value. The chain-rule and the numerical engine are made
elsewhere and handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Batch = dict[str, Tensor]
Loss = Callable[[Any, Any], Tensor]
Engine = Callable[[nn.Module, Loss, Batch], Tensor]


def autograd(model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    """The gradient by torch.autograd."""
    value = loss(model, batch)
    value.backward()  # type: ignore[no-untyped-call]
    return value.detach()
