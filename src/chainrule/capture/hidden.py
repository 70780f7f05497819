"""Dropout whose mask nobody can see, inside a recurrent layer or a fused kernel: where it is, and the model without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def hides_attention_mask(device: torch.device) -> bool:
    """True where attention with dropout runs as one kernel; on the CPU it runs by its parts, mask included."""
    return device.type != "cpu"


def off_sentence(where: str, p: float) -> str:
    """What a graph notes about a hidden dropout."""
    return f"{where}: its dropout (p={p}) is drawn inside one op where it cannot be held fixed; it is off here."


@contextmanager
def hidden_dropout_off(model: nn.Module) -> Iterator[None]:
    """The model as its graph has it: hidden dropout off, every other dropout as it is."""
    recurrent = {module: module.dropout for module in model.modules() if isinstance(module, nn.RNNBase)}
    for module in recurrent:
        module.dropout = 0.0
    try:
        with _AttentionWithoutHiddenDropout():
            yield
    finally:
        for module, p in recurrent.items():
            module.dropout = p


class _AttentionWithoutHiddenDropout(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            if hides_attention_mask(query.device):
                if len(args) > 4:
                    args = (*args[:4], 0.0, *args[5:])
                else:
                    kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)
