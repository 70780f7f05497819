"""PyTorch's own gradient of a captured graph: the graph's ops run under torch.autograd, sharing nothing with our rules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import run_node, value_of
from chainrule.graph import Graph, Value


def autograd_value_and_grad(
    graph: Graph, leaves: Mapping[str, Value] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradient by torch.autograd, by parameter name; zeros where autograd finds no path."""
    values: dict[str, Value] = {name: leaf.value for name, leaf in graph.leaves.items()}
    values.update(leaves or {})
    variables = {path: values[leaf.name].detach().requires_grad_() for path, leaf in graph.parameters.items()}
    values.update({leaf.name: variables[path] for path, leaf in graph.parameters.items()})
    with torch.enable_grad():
        for node in graph.nodes:
            values[node.name] = run_node(node, values)
        loss = value_of(graph.output, values)
        gradients = torch.autograd.grad(loss, list(variables.values()), materialize_grads=True, allow_unused=True)
    return loss.detach(), dict(zip(variables, gradients, strict=True))
