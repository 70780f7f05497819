"""Constants of a recorded program that are data: known by their numbers, whatever became of shape and dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chainrule.capture.tape_given import with_given
from chainrule.graph import Graph, Leaf, Ref


def kind(value: Tensor, *batches: object) -> tuple[str, str]:
    graph = Graph({"constant": Leaf("constant", "constant", value)}, (), Ref("constant"))
    leaf = with_given(graph, batches).leaves["constant"]
    return leaf.kind, leaf.path


LABELS = torch.tensor([3, 1, 2, 2])


@pytest.mark.parametrize("change", [lambda y: y, lambda y: y.float(), lambda y: y[:, None], lambda y: y.clone().half()])
def test_what_a_loader_gave_is_of_the_batch_at_its_place_there(change):
    assert ("batch", "['label']") == kind(change(LABELS), [torch.rand(5)], {"label": LABELS})


def test_numbers_that_were_rounded_on_the_way_are_the_same_numbers():
    exact = torch.rand(7, dtype=torch.float64)
    assert ("batch", "[0]") == kind(exact.float(), [exact])


@pytest.mark.parametrize("value", [LABELS + 1, LABELS[:3], torch.tensor([1.0]), torch.tensor([3j, 1, 2, 2])])
def test_other_numbers_and_a_single_one_stay_constants(value):
    assert "constant" == kind(value, [LABELS, torch.tensor([1.0])])[0]


def test_a_parameter_of_the_same_numbers_stays_one():
    graph = Graph({"w": Leaf("w", "parameter", LABELS, trainable=True)}, (), Ref("w"))
    assert "parameter" == with_given(graph, [[LABELS]]).leaves["w"].kind
