"""Random directions and the chi-square bound."""

import math

import pytest
import torch

from chainrule.errors import ChainruleError
from chainrule.numdiff.directions import (
    chi_square_quantile,
    error_bound,
    gaussian_directions,
    miss_probability,
    standard_normal,
)


@pytest.mark.parametrize(
    ("k", "probability", "expected"),
    # Abramowitz & Stegun, table 26.8
    [(1, 0.95, 3.84146), (2, 0.5, 1.38629), (8, 0.001, 0.85710), (10, 0.99, 23.20925), (16, 0.001, 3.94163)],
)
def test_chi_square_quantiles_are_those_of_the_tables(k, probability, expected):
    assert expected == pytest.approx(chi_square_quantile(k, probability), abs=1e-4)


@pytest.mark.parametrize(("k", "factor"), [(8, 1.08), (16, 0.50), (1, 798)])
def test_the_bound_of_equal_errors_is_the_known_factor(k, factor):
    errors = torch.full((k,), 1 / math.sqrt(k), dtype=torch.float64)

    assert factor == pytest.approx(error_bound(errors).bound, rel=0.01)


def test_the_bound_holds_as_often_as_it_claims():
    generator = torch.Generator().manual_seed(0)
    error = torch.zeros(1000, dtype=torch.float64)
    error[17] = 1e-3
    trials, held = 2000, 0
    for _ in range(trials):
        seen = torch.stack([torch.randn(1000, generator=generator, dtype=torch.float64) @ error for _ in range(8)])
        held += error_bound(seen, confidence=0.9).bound >= float(error.norm())

    assert 0.87 < held / trials < 0.93


def test_bars_widen_the_bound():
    errors = torch.tensor([1e-9, -1e-9], dtype=torch.float64)

    assert error_bound(errors, torch.full((2,), 1e-6)).bound > 100 * error_bound(errors).bound


@pytest.mark.parametrize(("ratio", "k", "expected"), [(0.1, 1, 8e-2), (0.1, 8, 1.6e-9), (0.5, 8, 4.6e-4)])
def test_the_probability_to_miss_an_error_falls_with_the_number_of_directions(ratio, k, expected):
    assert expected == pytest.approx(miss_probability(ratio, k), rel=0.05)


def test_the_bound_in_words():
    words = error_bound(torch.full((8,), 4e-11, dtype=torch.float64)).words("W_V", scale=2.0)

    assert "relative error of W_V at most 6.1e-11, with 99.9 % confidence (8 random directions)" == words


def test_directions_follow_the_generator_and_the_scales():
    tensors = {"weight": torch.zeros(50, 40), "bias": torch.zeros(40)}

    def draw(seed):
        return gaussian_directions(tensors, torch.Generator().manual_seed(seed), {"weight": 0.1, "bias": 2.0})

    assert torch.equal(draw(3)["weight"], draw(3)["weight"])
    assert not torch.equal(draw(3)["weight"], draw(4)["weight"])
    assert pytest.approx(0.1, rel=0.1) == float(draw(3)["weight"].std())
    assert bool((draw(3)["weight"] < 0).any())


def test_numbers_drawn_in_float32_are_normal_where_the_bound_needs_it():
    x = standard_normal((500_000,), torch.Generator().manual_seed(0))

    assert torch.float64 == x.dtype
    assert pytest.approx(1.0, rel=0.01) == float(x.square().mean())
    assert pytest.approx(3.0, rel=0.02) == float(x.pow(4).mean())
    # A bound fails where slopes are small by chance: the share near zero has to be right.
    assert pytest.approx(math.erf(0.01 / math.sqrt(2)), rel=0.05) == float((x.abs() < 0.01).double().mean())


@pytest.mark.parametrize(("k", "probability"), [(0, 0.5), (4, 0.0), (4, 1.0)])
def test_quantiles_without_meaning_are_refused(k, probability):
    with pytest.raises(ChainruleError, match="expected k >= 1"):
        chi_square_quantile(k, probability)
