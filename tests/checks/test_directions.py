"""Stage 4 alone: the loss along random directions against a gradient that is right, or wrong by a known share."""

import pytest
import torch
from torch.nn import functional as F

import chainrule as cr
from chainrule.capture import capture
from chainrule.checks.gradient.directional_mismatch import Directions, check
from chainrule.checks.subject import Subject
from chainrule.numdiff.directions import COUNT
from small_models import SmallGPT


def loss(model, tokens):
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def subject() -> Subject:
    torch.manual_seed(0)
    model, tokens = SmallGPT(), torch.randint(32, (2, 9))
    return Subject(cr.Setup(model, loss, [tokens]), tokens, capture(model, loss, tokens))


def with_one_wrong_entry(share: float) -> Subject:
    """A subject whose gradient is wrong in one entry, by a share of the whole gradient's size."""
    wrong = subject()
    size = Directions(wrong).size
    path = "blocks.1.value.weight"
    scale = float(wrong.exact.parameters[path].value.square().mean().sqrt())
    wrong.gradients[path][3, 5] += share * size / scale
    return wrong


def test_a_right_gradient_passes_with_a_bound_far_below_what_is_required():
    stage, findings = check(subject())
    assert [] == findings
    assert "pass" == stage.verdict
    assert stage.resolution < 2e-7


@pytest.mark.parametrize("share", [1e-1, 1e-4, 1e-6])
def test_one_wrong_entry_fails(share):
    stage, (finding,) = check(with_one_wrong_entry(share))
    assert "fail" == stage.verdict
    assert "directional-mismatch" == finding.check
    assert finding.message.startswith("along ")


def test_the_bound_is_above_an_error_that_is_too_small_to_fail():
    stage, findings = check(with_one_wrong_entry(1e-10))
    assert [] == findings
    assert stage.resolution > 1e-10


def test_directions_are_normal_independent_and_the_same_when_drawn_again():
    directions = Directions(subject())
    first = [directions.take(k)[0] for k in range(COUNT)]
    assert first == [directions.take(k)[0] for k in range(COUNT)]
    assert COUNT == len(set(first))
