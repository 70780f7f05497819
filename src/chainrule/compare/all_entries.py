"""The gradient of every parameter by differences of the loss: the numerical engine, which trains very small models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, loss_of
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.entry_stencils import order8_entries
from chainrule.compare.lines import graph_noise
from chainrule.errors import ChainruleError
from chainrule.graph import Graph, Ref, Value
from chainrule.numdiff.steps import relative_step

# Relative to the gradient's root mean square: what AdamW is given should be as good as autograd's own rounding allows.
RESOLUTION = 1e-9


def numerical_value_and_grad(
    graph: Graph, leaves: Mapping[str, Value] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradient with respect to every trainable parameter, by name: order 8, branches held.

    leaves  overrides the recorded values, by leaf name, as in `evaluate`

    Costs 8 to 16 evaluations for each entry of each parameter. Raises ChainruleError unless all parameters are float64.
    """
    base = evaluate(graph, leaves)
    for path, leaf in graph.parameters.items():
        if base[leaf.name].dtype != torch.float64:
            raise ChainruleError(
                f"{path} is {base[leaf.name].dtype}, expected torch.float64: rounding would drown every difference; "
                f"train the model in float64 (model.double()) with the numerical engine"
            )
    noise, _ = graph_noise(graph, base)
    gradients = {}
    for path, leaf in graph.parameters.items():
        weight = base[leaf.name]
        indices = torch.arange(weight.numel())
        source = EntryLines(graph, Ref(leaf.name), base)
        estimate = order8_entries(source, indices, relative_step(weight).h, noise, required=RESOLUTION)
        gradients[path] = estimate.value.view(weight.shape)
    return loss_of(graph, base), gradients
