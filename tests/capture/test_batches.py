"""Batches of any type: every tensor has a place, and the loss meets the type that it was written for."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from capture.graph_runs import Computed, assert_is_the_users_step, run_graph
from chainrule.capture import bind
from chainrule.capture.batches import tensors_of, with_tensors

X, Y = torch.linspace(-1, 1, 20).view(5, 4), torch.arange(5.0)
Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Example:
    x: Tensor
    y: Tensor
    names: list[str] = field(default_factory=lambda: ["a", "b"])
    scale: float = 2.0

    def total(self) -> Tensor:
        return self.x.sum() * self.scale


@dataclass(frozen=True, slots=True)
class Fixed:
    x: Tensor
    y: Tensor


class Encoding(UserDict):
    """As the tokenizers' BatchEncoding: a mapping whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


LOSSES = {
    "a tensor": (X, lambda m, b: m.linear(b).sum(), [""]),
    "a tuple": ((X, Y), lambda m, b: (m.linear(b[0]).sum(1) - b[1]).sum(), ["[0]", "[1]"]),
    "a list with numbers and text": ([X, 3.0, "text", None], lambda m, b: m.linear(b[0]).sum() * b[1], ["[0]"]),
    "a dict": ({"x": X, "y": Y}, lambda m, b: (m.linear(b["x"]).sum(1) * b["y"]).sum(), ["['x']", "['y']"]),
    "an ordered dict": (OrderedDict(x=X, n=2), lambda m, b: m.linear(b["x"]).sum() * b["n"], ["['x']"]),
    "a named tuple": (Pair(X, Y), lambda m, b: (m.linear(b.x).sum(1) * b.y).sum(), [".x", ".y"]),
    "a dataclass": (Example(X, Y), lambda m, b: m.linear(b.x).sum() * b.total() + len(b.names), [".x", ".y"]),
    "a frozen dataclass with slots": (Fixed(X, Y), lambda m, b: (m.linear(b.x).sum(1) * b.y).sum(), [".x", ".y"]),
    "a mapping with attributes": (
        Encoding(x=X, y=Y),
        lambda m, b: (m.linear(b.x).sum(1) * b["y"]).sum(),
        ["['x']", "['y']"],
    ),
    "an object": (SimpleNamespace(x=X, k=3), lambda m, b: m.linear(b.x).sum() * b.k, [".x"]),
    "nested": (
        {"in": [Example(X, Y), (X * 2,)]},
        lambda m, b: nested(m, b),
        ["['in'][0].x", "['in'][0].y", "['in'][1][0]"],
    ),
    "one list in two places": (SHARED := [[X]] * 2, lambda m, b: (m.linear(b[0][0]) * b[1][0]).sum(), ["[0][0]"]),
}


def nested(m, b):
    return (m.linear(b["in"][0].x) * b["in"][1][0]).sum() + b["in"][0].y.sum()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_this_type_is_captured_with_its_places(name):
    batch, loss, places = LOSSES[name]

    graph = assert_is_the_users_step(Computed(lambda m, x: x), loss, batch)

    assert "export" == graph.origin
    assert places == [leaf.path if leaf.paths[0] else "" for leaf in graph.leaves.values() if leaf.kind == "batch"]


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_with_other_tensors_is_of_the_same_type_and_the_old_one_is_as_it_was(name):
    batch = LOSSES[name][0]
    before = {place: (id(tensor), tensor.clone()) for place, tensor in tensors_of(batch).items()}

    twin = with_tensors(batch, lambda tensor: tensor + 1)

    assert type(batch) is type(twin)
    assert all(torch.equal(tensor, before[place][1] + 1) for place, tensor in tensors_of(twin).items())
    assert {place: number for place, (number, _) in before.items()} == {p: id(t) for p, t in tensors_of(batch).items()}


@pytest.mark.parametrize("name", ["a dict", "a dataclass", "nested"])
def test_binding_another_batch_gives_its_loss(name):
    batch, loss, _ = LOSSES[name]
    model = Computed(lambda m, x: x)
    graph = assert_is_the_users_step(model, loss, batch)

    other = with_tensors(batch, lambda tensor: tensor * 0.3)

    assert loss(model, other).item() == run_graph(graph, bind(graph, model, other)).item()


def test_a_member_may_be_called_like_an_op():
    batch = {"norm": X, "norm_1": X * 2}

    def loss(m, b):
        return (F.batch_norm(m.linear(b["norm"]), m.mean, m.mean) * b["norm_1"]).sum()

    graph = assert_is_the_users_step(Computed(lambda m, x: x), loss, batch)

    names = [*graph.leaves, *(node.name for node in graph.nodes)]
    assert len(names) == len(set(names))


def test_an_object_that_refers_to_itself_is_walked_once():
    batch = SimpleNamespace(x=X)
    batch.me = batch

    assert [".x"] == [*tensors_of(batch)]
    assert (twin := with_tensors(batch, lambda tensor: tensor + 1)).me is twin


def test_nothing_is_iterated_that_iterating_would_consume():
    once = iter([1, 2, 3])

    tensors_of({"x": X, "rest": once})
    with_tensors({"x": X, "rest": once}, lambda tensor: tensor)

    assert [1, 2, 3] == [*once]


@pytest.mark.hf
def test_the_types_of_transformers_are_batches_too():
    from transformers import BatchEncoding
    from transformers.modeling_outputs import BaseModelOutput

    encoding, output = BatchEncoding({"input_ids": X}), BaseModelOutput(last_hidden_state=X)

    assert_is_the_users_step(Computed(lambda m, x: x), lambda m, b: m.linear(b.input_ids).sum(), encoding)
    assert_is_the_users_step(Computed(lambda m, x: x), lambda m, b: m.linear(b["last_hidden_state"]).sum(), output)
    assert (X + 1).equal(with_tensors(output, lambda tensor: tensor + 1).last_hidden_state)
