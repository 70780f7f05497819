"""Finite differences of functions whose derivatives are known."""

import math

import pytest
import torch
from torch import Tensor

from chainrule.errors import ChainruleError
from chainrule.numdiff.stencils import (
    CAUTION,
    CENTRAL,
    ORDER_8,
    Estimate,
    Stencil,
    better,
    central,
    forward,
    order8,
    truncation,
)

NOISE = 1e-16


def lines_of_sine(base: Tensor):
    return lambda t: torch.sin(base + t)


@pytest.mark.parametrize(
    ("stencil", "exact_to_degree"),
    [(Stencil((1.0, 2.0), CENTRAL.weights, ()), 2), (ORDER_8, 8)],
    ids=["central", "order 8"],
)
def test_a_stencil_is_exact_for_polynomials_up_to_its_order_and_for_no_higher(stencil, exact_to_degree):
    def derivative_at_zero(degree: int) -> float:
        pairs = zip(stencil.points, stencil.weights, strict=True)
        return sum(weight * (point**degree - (-point) ** degree) for point, weight in pairs)

    found = [derivative_at_zero(degree) for degree in range(exact_to_degree + 2)]

    assert [0.0, 1.0] == pytest.approx(found[:2], abs=1e-14)
    assert [0.0] * (exact_to_degree - 1) == pytest.approx(found[2 : exact_to_degree + 1], abs=1e-10)
    assert abs(found[exact_to_degree + 1]) > 0.1


@pytest.mark.parametrize(("place", "order"), [(0, 6), (1, 4), (2, 2)])
def test_the_lower_weights_of_order_8_are_the_formulas_of_order_6_4_and_2(place, order):
    for degree in range(1, order + 1, 2):
        pairs = zip(ORDER_8.points, ORDER_8.lower[place], strict=True)
        expected = 1.0 if degree == 1 else 0.0
        assert expected == pytest.approx(sum(2 * weight * point**degree for point, weight in pairs), abs=1e-12)


def test_the_truncation_bar_does_not_vanish_where_the_last_difference_does_by_chance():
    values = torch.tensor([[1.0, 1.0], [1.0, 1.1], [1.1, 1.2], [2.1, 1.3]], dtype=torch.float64)

    # By chance D8 = D6 in the first column, but D6 - D4 is a tenth of D4 - D2: a hundredth is to be expected.
    torch.testing.assert_close(truncation(list(values)), torch.tensor([CAUTION * 0.01, 0.1], dtype=torch.float64))


def test_the_bar_covers_functions_whose_taylor_series_hardly_reaches_the_outermost_points():
    base = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    for width in (0.12, 0.2, 0.4):  # the outermost points are at 0.08
        estimate = order8(lambda t, w=width: 1 / (1 + ((base + t) / w) ** 2), torch.full_like(base, 0.02), 1e-16)
        x = base / width
        error = (estimate.value + 2 * x / width / (1 + x**2) ** 2).abs()

        assert float((error <= estimate.bar).double().mean()) > 0.999


def test_forward_difference_is_the_textbook_quotient():
    estimate = forward(lambda t: (3 + t) ** 2, 1e-5)

    assert float(((3 + 1e-5) ** 2 - 9) / 1e-5) == pytest.approx(float(estimate.value), abs=1e-9)
    assert estimate.bar is None
    assert estimate.evaluations == 2


def test_forward_difference_takes_a_known_current_loss_and_spends_one_evaluation():
    calls = []

    def line(t: Tensor) -> Tensor:
        calls.append(t.numel())
        return torch.exp(t)

    estimate = forward(line, 1e-6, current=torch.tensor(1.0, dtype=torch.float64))

    assert 1 == estimate.evaluations == sum(calls)
    assert float(estimate.value) == pytest.approx(1.0, abs=1e-6)


def test_central_difference_is_inside_its_bar_and_its_bar_is_truncation_not_more():
    base = torch.linspace(-2, 2, 41, dtype=torch.float64)
    estimate = central(lines_of_sine(base), torch.full_like(base, 1e-3), NOISE)

    error = (estimate.value - torch.cos(base)).abs()
    assert bool((error <= estimate.bar).all())
    assert float(estimate.bar.max()) < 1e-6


def test_order_8_covers_many_derivatives_with_eight_evaluations_each():
    generator = torch.Generator().manual_seed(0)
    base = 3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    estimate = order8(lambda t: torch.exp(torch.sin(base + t)), torch.full_like(base, 0.02), noise=2e-16)

    error = (estimate.value - torch.cos(base) * torch.exp(torch.sin(base))).abs()
    assert 8 * 20_000 == estimate.evaluations
    assert float((error <= estimate.bar).double().mean()) >= 0.9999
    assert float(error.median()) < 1e-13


def test_order_8_takes_a_step_per_line():
    base = torch.tensor([0.0, 1e-4], dtype=torch.float64)
    scale = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    estimate = order8(lambda t: torch.sin((base + t) / scale), 0.02 * scale, noise=1e-16)

    torch.testing.assert_close(estimate.value, torch.cos(base / scale) / scale, rtol=1e-12, atol=0)


def test_the_bar_grows_when_the_step_is_far_too_long():
    line = lines_of_sine(torch.tensor(0.3, dtype=torch.float64))

    wide = order8(line, 1.0, NOISE)

    assert float((wide.value - math.cos(0.3)).abs()) <= float(wide.bar)
    assert float(wide.bar) > 1e6 * float(order8(line, 0.02, NOISE).bar)


def test_better_keeps_line_by_line_the_estimate_with_the_smaller_bar():
    one = torch.tensor([1.0, 1.0], dtype=torch.float64)
    first = Estimate(one * 3, torch.tensor([0.1, 0.5], dtype=torch.float64), one * 0.02, 16, NOISE)
    second = Estimate(one * 4, torch.tensor([0.2, 0.2], dtype=torch.float64), one * 0.01, 16, NOISE)

    chosen = better(first, second)

    assert [3.0, 4.0] == chosen.value.tolist()
    assert [0.1, 0.2] == chosen.bar.tolist()
    assert [0.02, 0.01] == chosen.h.tolist()
    assert chosen.evaluations == 32


def test_better_refuses_an_estimate_without_a_bar():
    estimate = forward(torch.exp, 1e-5)

    with pytest.raises(ChainruleError, match="only estimates with a bar can be compared"):
        better(estimate, estimate)


@pytest.mark.parametrize("h", [0.0, -1e-5, math.nan, math.inf])
def test_a_step_that_is_no_positive_number_is_refused(h):
    with pytest.raises(ChainruleError, match="expected a positive number such as 1e-5"):
        forward(torch.exp, h)


def test_a_line_that_returns_too_few_losses_is_refused_with_both_shapes():
    with pytest.raises(ChainruleError, match=r"shape \(1,\) for offsets of shape \(8,\)"):
        order8(lambda t: t.sum()[None], 0.02, NOISE)
