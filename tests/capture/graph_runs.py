"""A captured graph run node by node, and differentiated by torch's autograd: independent of our engine and rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture import capture
from chainrule.capture.running import resolve, run
from chainrule.graph import Graph

Loss = Callable[[Any, Any], Tensor]


class Computed(nn.Module):
    """A small model with a linear layer, a free weight and a buffer, whose forward is the function it is given."""

    def __init__(self, compute: Callable[[Computed, Any], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(4))
        self.register_buffer("mean", torch.ones(4))
        self.compute = compute

    def forward(self, x: Any) -> Tensor:
        return self.compute(self, x)


def squared(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).pow(2).sum()


def run_graph(graph: Graph, over: Mapping[str, Tensor] | None = None) -> Tensor:
    """The loss that the graph computes, with some leaves replaced."""
    values: dict[str, Any] = {name: leaf.value for name, leaf in graph.leaves.items()} | dict(over or {})
    for node in graph.nodes:
        values[node.name] = run(node, values)
    return resolve(graph.output, values)


def autograd_of(graph: Graph) -> dict[str, Tensor]:
    """The gradient of the graph's loss by torch.autograd, by parameter path; zeros where none arrives."""
    over = {leaf.name: leaf.value.clone().requires_grad_() for leaf in graph.parameters.values()}
    gradients = torch.autograd.grad(run_graph(graph, over), list(over.values()), allow_unused=True)
    zeros = {name: torch.zeros_like(value) for name, value in over.items()}
    return {
        leaf.path: zeros[leaf.name] if gradient is None else gradient
        for leaf, gradient in zip(graph.parameters.values(), gradients, strict=True)
    }


def eager(model: nn.Module, loss: Loss, batch: Any, seed: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    """The user's own step: the loss, and what backward leaves in .grad; zeros where it leaves nothing."""
    torch.manual_seed(seed)
    model.zero_grad()
    value = loss(model, batch)
    value.backward()
    return value.detach(), {
        path: torch.zeros_like(p) if p.grad is None else p.grad
        for path, p in model.named_parameters()
        if p.requires_grad
    }


def captured(model: nn.Module, loss: Loss, batch: Any, seed: int = 4) -> Graph:
    """The graph, its randomness drawn from this seed."""
    torch.manual_seed(seed)
    return capture(model, loss, batch)


def assert_is_the_users_step(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """Capture, and demand the user's own loss to the bit and autograd's own gradients to rounding."""
    graph = captured(model, loss, batch)
    found = autograd_of(graph)
    value, expected = eager(model, loss, batch)
    assert value.item() == run_graph(graph).item()
    assert expected.keys() == found.keys()
    for path, gradient in expected.items():
        torch.testing.assert_close(found[path], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()), msg=path)
    return graph
