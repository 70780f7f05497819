"""The tensors that the loss hands to the model, by the names of the parameters of its forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Copies


def arguments_of(copies: Copies) -> dict[str, Tensor]:
    """Name -> tensor at the model's first call; members of a container by its name and their place."""
    calls: list[tuple[Any, Any]] = []
    hook = copies.model.register_forward_pre_hook(lambda _, a, k: calls.append((a, k)), with_kwargs=True)
    try:
        copies.value()
    finally:
        hook.remove()
    return _named(copies.model, *calls[0]) if calls else {}


def _named(model: nn.Module, args: Any, kwargs: Any) -> dict[str, Tensor]:
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError:
        bound = dict(kwargs)
    named: dict[str, Tensor] = {}
    for name, value in bound.items():
        inner = value if isinstance(value, Mapping) else {name: value}
        named |= {str(key): tensor for key, tensor in inner.items() if isinstance(tensor, Tensor)}
        if not isinstance(value, (Mapping, Tensor)):
            named |= {f"{name}{place}": tensor for place, tensor in tensors_of(value).items()}
    return named
