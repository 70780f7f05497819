"""The values that a graph's leaves have now: the model's current parameters and buffers, and another batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.capture.nodes import LOSS_PATH
from chainrule.errors import SetupError
from chainrule.graph import Graph, Leaf
from chainrule.setups import uncompiled


def bind(graph: Graph, model: nn.Module, batch: Any, loss: Any = None) -> dict[str, Tensor]:
    """{leaf name: current value} of the leaves of kind parameter, buffer and batch, in each leaf's dtype.

    loss  needed only where the loss is a module with parameters or buffers of its own

    Values that have the leaf's dtype already are not copied. Raises SetupError where model or batch no longer fit the
    graph: a missing tensor, or one of another shape (a graph holds for one set of shapes; capture again).
    """
    state = _state(uncompiled(model))
    if isinstance(loss, nn.Module):
        state |= {f"{LOSS_PATH}.{path}": tensor for path, tensor in _state(loss).items()}
    tensors = tensors_of(batch)
    current: dict[str, Tensor] = {}
    for name, leaf in graph.leaves.items():
        if leaf.kind in ("parameter", "buffer"):
            current[name] = _fitting(leaf, state, "the model")
        elif leaf.kind == "batch":
            current[name] = _fitting(leaf, tensors, "the batch")
    return current


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _fitting(leaf: Leaf, tensors: dict[str, Tensor], owner: str) -> Tensor:
    value = tensors.get(leaf.path)
    if value is None:
        raise SetupError(f"{owner} has no tensor at {leaf.path or 'its top'}, which the graph reads; capture again")
    if value.shape != leaf.value.shape:
        raise SetupError(
            f"{owner}'s tensor {leaf.path} has shape {tuple(value.shape)}, the graph was captured for "
            f"{tuple(leaf.value.shape)}; capture again"
        )
    return value.detach().to(leaf.value.dtype)
