"""The user's own forward, run as it is, with nothing of the user's changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.hidden import hidden_dropout_off
from chainrule.capture.preserve import preserved


def user_loss(model: nn.Module, loss: Callable[[Any, Any], Tensor], batch: Any) -> Tensor:
    """loss(model, batch) from the global generators as they are now, which is what `capture` drew its leaves from.

    As in the graph, dropout is off where its mask is hidden inside one op.
    """
    with preserved(model, loss, batch, contents=True), hidden_dropout_off(model), torch.enable_grad():
        return loss(model, batch).detach().clone()
