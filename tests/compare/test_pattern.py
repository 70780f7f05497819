"""Hints name the mistake: each planted kind gets its own sentence, and a sentence about something else is not said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chainrule.compare.pattern import constant_ratio, hints

TRUTH = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _one_entry(t: Tensor) -> Tensor:
    t[2, 3] += 1
    return t


def _one_row(t: Tensor) -> Tensor:
    t[4] *= 3
    return t


def _one_column(t: Tensor) -> Tensor:
    t[:, 1] -= 2
    return t


def _masked(t: Tensor) -> Tensor:
    return t.tril()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda t: 0.5 * t, "ratio yours/chain rule = 0.5 at every nonzero element"),
        (lambda t: -t, "opposite sign"),
        (lambda t: 0 * t, "zero everywhere"),
        (lambda t: t.mT.contiguous(), "the transpose of the chain rule's"),
        (_one_entry, "only the entry (2, 3) is wrong"),
        (_one_row, "only slice 4 of axis 0"),
        (_one_column, "only slice 1 of axis 1"),
        (_masked, "a wrong mask"),
        (lambda t: t.roll(1, 0), "shifted by +1 along axis 0"),
        (lambda t: t + t.mean(1, keepdim=True), "constant along axis 1: a term that is summed or averaged"),
        (lambda t: t * float("nan"), "inf or nan"),
    ],
)
def test_each_mistake_gets_its_own_hint(mistake, words):
    sentences = hints(mistake(TRUTH.clone()), TRUTH)

    assert words in sentences[0]


def test_a_gradient_that_is_wrong_in_no_simple_way_gets_no_hint():
    noise = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    assert [] == hints(TRUTH + noise, TRUTH)


def test_a_mask_that_was_left_out_is_told_from_one_that_drops_too_much():
    sentences = hints(TRUTH, TRUTH.tril())

    assert "should be zero (masked) and are not" in sentences[0]


def test_the_ratio_is_none_unless_it_holds_everywhere():
    assert constant_ratio(3 * TRUTH, TRUTH) == pytest.approx(3)
    assert constant_ratio(TRUTH + 1, TRUTH) is None
