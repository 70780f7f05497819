"""Every healthy model of the zoo is captured, and its graph computes its loss, in its own dtype and in true float64."""

from __future__ import annotations

import pytest
import torch

from capture.graph_runs import captured, run_graph
from chainrule.capture import bind, promote
from chainrule.graph import Spec
from zoo.case import ZooModel
from zoo.hf import HF
from zoo.models import OWN

ZOO = (*OWN, *(pytest.param(model, marks=pytest.mark.hf) for model in HF))


@pytest.mark.parametrize("zoo_model", ZOO, ids=str)
def test_the_graph_is_the_model(zoo_model: ZooModel):
    model, loss, batch = zoo_model.build()
    bound = {name: value.clone() for name, value in model.state_dict().items()}

    graph = captured(model, loss, batch)

    assert zoo_model.origin == graph.origin
    assert [] == [name for name, value in model.state_dict().items() if not torch.equal(value, bound[name])]
    assert {path for path, p in model.named_parameters() if p.requires_grad} == graph.parameters.keys()
    assert [] == [node.name for node in graph.nodes if node.source is None]
    assert run_graph(graph).item() == run_graph(graph, bind(graph, model, batch)).item()
    torch.manual_seed(4)
    expected = loss(model, batch)
    ulp = torch.finfo(expected.dtype).eps * abs(expected.item())
    assert abs(expected.item() - run_graph(graph).item()) <= 4 * ulp

    wide = promote(graph)

    value = run_graph(wide)
    narrowest = max(torch.finfo(dtype).eps for dtype in floating(graph))
    assert {torch.float64, torch.complex128} >= floating(wide)
    assert abs(expected.item() - value.item()) <= 8 * narrowest * abs(expected.item())


def floating(graph) -> set[torch.dtype]:
    specs = [s for node in graph.nodes for s in ((node.spec,) if isinstance(node.spec, Spec) else node.spec) if s]
    return {spec.dtype for spec in specs if spec.dtype.is_floating_point or spec.dtype.is_complex}
