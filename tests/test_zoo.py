"""The zoo of healthy models: every one builds the same twice, has finite gradients, and (below) passes every check."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import chainrule as cr
from chainrule.autodiff.evaluate import evaluate
from chainrule.autodiff.reverse import reverse
from chainrule.capture import promote
from chainrule.checks.gradient import STAGES
from chainrule.compare.agreement import leaf_bounds
from chainrule.compare.by_autograd import autograd_value_and_grad
from chainrule.graph import Graph, Ref
from chainrule.tolerance import unit
from zoo.case import ZooModel
from zoo.models import OWN

try:
    from zoo.hf import HF
except ModuleNotFoundError:  # the only skip that this file knows: CI installs the extra, and there it is an error
    if "CI" in os.environ:
        raise
    HF = ()

PROOF = [name for name, _ in STAGES.values()]  # test_healthy has the groups beyond the gradient
ZOO = (*OWN, *(pytest.param(model, marks=pytest.mark.hf) for model in HF))
every_model = pytest.mark.parametrize("model", ZOO, ids=str)


@cache
def graph_of(model: ZooModel) -> Graph:
    """The model's graph, captured once in a session; an op without a rule is written out in smaller ones."""
    return cr.capture(*model.build())


def each_tensor(change: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The batch with `change` applied to its tensors."""
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: each_tensor(change, getattr(batch, field.name)) for field in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **fields)
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, batch)


def gradients(zoo_model: ZooModel, dtype: torch.dtype) -> dict[str, Tensor]:
    model, loss, batch = zoo_model.build()
    batch = each_tensor(lambda t: t.to(dtype) if t.is_floating_point() else t, batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss(model.to(dtype), batch).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_zoo_has_at_least_nine_own_and_thirteen_transformers_models_with_unique_names():
    names = [model.name for model in (*OWN, *HF)]
    assert len(OWN) >= 9
    assert len(names) == len(set(names))
    if not HF:
        pytest.skip("the transformers models need the extra: pip install .[hf]")
    assert len(HF) >= 13


@every_model
def test_a_zoo_model_is_the_same_twice_and_leaves_the_generator_alone(model: ZooModel):
    before = torch.get_rng_state()
    first, second = model.build()[0].state_dict(), model.build()[0].state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert 0 < sum(t.numel() for t in first.values()) < 200_000


@every_model
def test_a_zoo_model_has_finite_gradients_in_float32(model: ZooModel):
    found = gradients(model, torch.float32)
    assert found
    assert [] == [name for name, gradient in found.items() if not gradient.isfinite().all()]


@every_model
def test_a_zoo_model_has_finite_gradients_in_plain_float64_unless_it_says_that_it_cannot(model: ZooModel):
    if not model.double:
        with pytest.raises(RuntimeError):
            gradients(model, torch.float64)
        return
    assert [] == [name for name, g in gradients(model, torch.float64).items() if not g.isfinite().all()]


@every_model
def test_capture_takes_the_way_that_the_zoo_states(model: ZooModel):
    assert model.origin == graph_of(model).origin


@every_model
def test_the_chain_rule_equals_autograd_in_every_entry_of_every_parameter(model: ZooModel):
    graph = promote(graph_of(model), torch.float64)
    values = evaluate(graph)
    adjoints = reverse(graph, values)
    _, expected = autograd_value_and_grad(graph)
    cancelled = leaf_bounds(graph, values, adjoints)
    assert graph.parameters
    wrong = {}
    for path, leaf in graph.parameters.items():
        found = adjoints.get(Ref(leaf.name), torch.zeros_like(expected[path]))
        scale = max(float(expected[path].norm()), unit(torch.float64) * cancelled.get(Ref(leaf.name), 0.0) * 1e13)
        difference = float((found - expected[path]).abs().max())
        if not difference <= 1e-10 * scale:
            wrong[path] = difference / scale
    assert {} == wrong


@every_model
def test_check_passes_a_healthy_model_and_says_nothing(model: ZooModel):
    network, loss, batch = model.build()
    report = cr.check(cr.Setup(network, loss, [batch]), only=PROOF)
    assert [] == [(f.check, f.where, f.message) for f in report.findings if f.severity != "info"]
    assert "pass" == report.verdict
