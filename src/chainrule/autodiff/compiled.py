"""Forward and our backward as one compiled function: traced once through the rules, then optimised by torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from chainrule.autodiff.reverse import value_and_grad
from chainrule.graph import Graph

# current values of leaves by name (those left out keep their recorded values) -> loss, gradients by parameter name
Compiled = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


def compiled(graph: Graph, **options: Any) -> Compiled:
    """`value_and_grad` of this graph, compiled; `options` go to torch.compile.

    The trace is straight-line ATen code: no Python of ours runs in the compiled step. Shapes are those of the graph.
    """
    names = tuple(graph.leaves)
    paths = tuple(graph.parameters)

    def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        value, gradients = value_and_grad(graph, dict(zip(names, tensors, strict=True)))
        return (value, *(gradients[path] for path in paths))

    recorded = [leaf.value for leaf in graph.leaves.values()]
    traced = make_fx(flat)(recorded)
    fast = torch.compile(traced, **options)

    def run(leaves: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            value, *gradients = fast([leaves.get(name, leaf.value) for name, leaf in graph.leaves.items()])
        return value, dict(zip(paths, gradients, strict=True))

    return run
