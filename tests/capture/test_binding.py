"""Binding: the values that the leaves have now."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capture.graph_runs import Computed, run_graph, squared
from chainrule.capture import bind, capture, promote
from chainrule.errors import SetupError

X = torch.linspace(-1, 1, 20).view(5, 4)


def forward(m, x):
    return m.linear(x) * m.weight + m.mean


def test_after_a_training_step_bound_values_give_the_models_new_loss():
    model = Computed(forward)
    graph = capture(model, squared, X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    squared(model, X).backward()
    optimizer.step()
    model.mean.add_(1)

    assert squared(model, X * 2).item() == run_graph(graph, bind(graph, model, X * 2)).item()


def test_values_are_bound_in_the_graphs_dtype():
    model = Computed(forward)
    graph = promote(capture(model, squared, X))

    bound = bind(graph, model, X)

    assert {torch.float64} == {value.dtype for value in bound.values()}
    assert run_graph(graph).item() == run_graph(graph, bound).item()


def test_a_tied_parameter_is_bound_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight

    graph = capture(model, squared, X)

    assert 3 == sum(graph.leaves[name].kind == "parameter" for name in bind(graph, model, X))


def test_a_batch_of_another_shape_is_refused():
    model = Computed(forward)
    graph = capture(model, squared, X)

    with pytest.raises(SetupError, match=r"batch's tensor .* has shape \(4, 4\), the graph was captured for \(5, 4\)"):
        bind(graph, model, X[:4])


def test_a_batch_without_the_tensor_is_refused():
    model = Computed(lambda m, b: m.linear(b["x"]))
    graph = capture(model, squared, {"x": X})

    with pytest.raises(SetupError, match=r"the batch has no tensor at \['x'\]"):
        bind(graph, model, {"y": X})


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, model, batch):
        return (model(batch) * self.scale).pow(2).sum()


def test_a_loss_with_parameters_is_bound_with_the_loss():
    model, loss = Computed(forward), Scaled()
    graph = capture(model, loss, X)
    with torch.no_grad():
        loss.scale.fill_(3.0)

    with pytest.raises(SetupError, match=r"no tensor at \(loss\)\.scale"):
        bind(graph, model, X)
    assert loss(model, X).item() == run_graph(graph, bind(graph, model, X, loss)).item()
