"""A batch whose numbers an op refuses: the error says which op, where, what it held and what was expected."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.errors import SetupError

SCORES = torch.tensor([[0.5, 0.25], [1.0, 2.0], [0.0, -1.0]])


def refusal(model: nn.Module, loss, batch) -> list[str]:
    """The lines of what is said; the path and the number of the line are cut out."""
    with pytest.raises(SetupError) as raised:
        cr.check(cr.Setup(model, loss, [batch]))
    first, *more = str(raised.value).splitlines()
    said, place, code = first.partition(" at ")[0], *first.rsplit(": ", 1)
    assert "test_given.py:" in place
    return [said, code, *more]


def binary(model, batch):
    x_BD, y_B = batch
    return F.binary_cross_entropy(model(x_BD).squeeze(1), y_B)


def test_targets_of_a_binary_cross_entropy_lie_between_0_and_1():
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)

    assert [
        "loss(model, batch) cannot be computed: binary_cross_entropy refuses its input",
        "return F.binary_cross_entropy(model(x_BD).squeeze(1), y_B)",
        "  RuntimeError: all elements of target should be between 0 and 1",
        "  self (3,) float32 holds 0.5 .. 0.5",
        "  target (3,) float32 holds 0 .. 2",
        "  a binary cross entropy takes targets from 0 to 1: for more than two classes use one output per class and "
        "cross_entropy",
    ] == refusal(model, binary, (SCORES, torch.tensor([0.0, 1.0, 2.0])))


def test_a_binary_cross_entropy_is_given_probabilities():
    said = refusal(nn.Linear(2, 1), binary, (4 * SCORES, torch.tensor([0.0, 1.0, 1.0])))

    assert (
        "  a binary cross entropy takes probabilities: give it a sigmoid's output, or use "
        "binary_cross_entropy_with_logits"
    ) == said[-1]


def test_labels_are_those_of_the_classes():
    said = refusal(
        nn.Linear(2, 2), lambda model, b: F.cross_entropy(model(b[0]), b[1]), (SCORES, torch.tensor([0, 1, 2]))
    )

    assert "  IndexError: Target 2 is out of bounds." == said[2]
    assert [
        "  target (3,) int64 holds 0 .. 2",
        "  scores of 2 classes take labels from 0 to 1, and -100, which is left out: give the model an output for every "
        "class, or mend the labels",
    ] == said[-2:]


def test_indices_are_those_of_an_embeddings_rows():
    said = refusal(nn.Embedding(5, 2), lambda model, ids: model(ids).sum(), torch.tensor([0, 5]))

    assert (
        "  an embedding of 5 rows takes indices from 0 to 4: give it a row for every token, or mend the ids" == said[-1]
    )


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x_BD):
        return self.scale * x_BD


def test_an_input_that_is_nan_is_said_to_be():
    said = refusal(Scaled(), binary, (torch.full((3, 1), torch.nan), torch.zeros(3)))

    assert "  self (3,) float32 holds 3 inf or nan" == said[3]
