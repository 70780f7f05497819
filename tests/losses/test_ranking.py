"""Losses that compare, against torch's functions and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from chainrule.losses.ranking import info_nce, margin_ranking, triplet

seeds = st.integers(0, 10_000)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seeds)
def test_margin_ranking_is_its_formula(seed):
    first, second, order = normal(seed, 3, 9)
    order = order.sign()

    torch.testing.assert_close(
        margin_ranking(first, second, order, margin=0.3), (0.3 - order * (first - second)).clamp_min(0).mean()
    )


@given(seeds)
def test_triplet_is_its_formula(seed):
    a, p, n = normal(seed, 3, 5, 4)
    expected = (0.5 + (a - p + 1e-6).norm(dim=1) - (a - n + 1e-6).norm(dim=1)).clamp_min(0).mean()

    torch.testing.assert_close(triplet(a, p, n, margin=0.5), expected)


@given(seeds)
def test_info_nce_is_the_negative_log_of_each_querys_own_key(seed):
    query, key = normal(seed, 2, 5, 4)
    p = torch.softmax(F.cosine_similarity(query[:, None], key[None], dim=-1) / 0.1, dim=1)

    torch.testing.assert_close(info_nce(query, key), -p.diagonal().log().mean())


def test_info_nce_of_keys_that_tell_nothing_is_log_n():
    assert math.log(5) == pytest.approx(float(info_nce(normal(0, 5, 4), torch.ones(5, 4, dtype=torch.float64))))


@given(seeds, st.floats(0.01, 100))
def test_the_length_of_a_vector_does_not_matter_to_info_nce(seed, factor):
    query, key = normal(seed, 2, 5, 4)

    torch.testing.assert_close(info_nce(factor * query, key), info_nce(query, key))
