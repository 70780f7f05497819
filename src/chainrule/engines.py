"""The three gradient engines behind one call: engine(model, loss, batch) adds dL/dp to every p.grad and returns the loss.

`autograd` lives with the training loop; here are the other two, which work on the captured graph. A graph holds for one
set of batch shapes, so each engine keeps one graph for each set that it has met, and reads the model's current values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from chainrule.autodiff import compiled, value_and_grad
from chainrule.autodiff.compiled import Compiled
from chainrule.autodiff.evaluate import evaluate, run_node, value_of
from chainrule.capture import bind, capture
from chainrule.capture.batches import tensors_of
from chainrule.capture.expand import expand
from chainrule.compare.entries import numerical_value_and_grad
from chainrule.derivatives import FLAT, RULES
from chainrule.graph import Graph, Node
from chainrule.setups import uncompiled

KNOWN = RULES.keys() | FLAT
Loss = Callable[[Any, Any], Tensor]
# (graph, current leaf values) -> the loss and the gradient of every parameter
Differentiate = Callable[[Graph, Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]]


class GraphEngine:
    """Gradients of the captured graph by `differentiate`; a drop-in for loss.backward()."""

    def __init__(self, differentiate: Differentiate) -> None:
        self._differentiate = differentiate
        # by the model itself, weakly: the id of a model that is gone may be that of the next one
        self._graphs: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Graph]] = WeakKeyDictionary()

    def __call__(self, model: nn.Module, loss: Loss, batch: Any) -> Tensor:
        """Add dL/dp to each parameter's `.grad`, update the buffers that forward updates, and return the loss."""
        # The graph names parameters as they are inside the wrapper that torch.compile puts around a model.
        model = uncompiled(model)
        graph = self._graph(model, loss, batch)
        leaves = {**bind(graph, model, batch), **redraw(graph)}
        value, gradients = self._differentiate(graph, leaves)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for path, gradient in gradients.items():
            parameter = parameters[path]
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
        _update_buffers(graph, leaves, model)
        return value

    def _graph(self, model: nn.Module, loss: Loss, batch: Any) -> Graph:
        shapes = tuple((path, tensor.shape, tensor.dtype) for path, tensor in tensors_of(batch).items())
        graphs = self._graphs.setdefault(model, {})
        key = (model.training, shapes)
        if key not in graphs:
            graphs[key] = expand(capture(model, loss, batch), KNOWN)
        return graphs[key]


def chain_rule_engine(*, compile: bool = False) -> GraphEngine:
    """Our own reverse mode, in the dtype of the model; compiled once for each set of batch shapes if `compile`."""
    if not compile:
        return GraphEngine(value_and_grad)
    functions: dict[Graph, Compiled] = {}

    def differentiate(graph: Graph, leaves: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        if graph not in functions:
            functions[graph] = compiled(graph)
        return functions[graph](leaves)

    return GraphEngine(differentiate)


def numerical_engine() -> GraphEngine:
    """Order-8 finite differences with frozen branches: no calculus; for very small models."""
    return GraphEngine(numerical_value_and_grad)


def redraw(graph: Graph) -> dict[str, Tensor]:
    """Fresh random draws (dropout masks and the like) from the global generator, in the order of forward."""
    fixed = {name: leaf.value for name, leaf in graph.leaves.items()}
    return {name: _draw(leaf.recipe, fixed) for name, leaf in graph.leaves.items() if leaf.recipe is not None}


def _draw(recipe: Node, fixed: Mapping[str, Tensor]) -> Tensor:
    drawn = run_node(recipe, fixed)
    value: Tensor = drawn[0] if isinstance(drawn, tuple) else drawn
    return value


def _update_buffers(graph: Graph, leaves: Mapping[str, Tensor], model: nn.Module) -> None:
    if not graph.mutated:
        return
    values = evaluate(graph, leaves)
    buffers = dict(model.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for path, ref in graph.mutated.items():
            buffers[path].copy_(value_of(ref, values))
