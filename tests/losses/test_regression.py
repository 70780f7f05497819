"""Regression losses against scikit-learn, scipy and their own formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from chainrule.errors import SetupError
from chainrule.losses.regression import LOSSES, huber, log_cosh, mae, mse, poisson, quantile

numbers = st.floats(-1e4, 1e4)


def pairs():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 200, generator=generator, dtype=torch.float64)
    return prediction, target


def slope(loss, at):
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    loss(x, torch.zeros(1, dtype=torch.float64)).backward()
    return float(x.grad)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (metrics.mean_squared_error, mse),
        (metrics.mean_absolute_error, mae),
        (lambda t, p: metrics.mean_pinball_loss(t, p, alpha=0.9), lambda p, t: quantile(p, t, level=0.9)),
        (lambda t, p: metrics.mean_pinball_loss(t, p, alpha=0.2), lambda p, t: quantile(p, t, level=0.2)),
    ],
    ids=["mse", "mae", "quantile 0.9", "quantile 0.2"],
)
def test_the_value_is_scikit_learns(theirs, ours):
    prediction, target = pairs()

    assert theirs(target.numpy(), prediction.numpy()) == pytest.approx(float(ours(prediction, target)), rel=1e-12)


def test_poisson_is_half_scikit_learns_deviance_up_to_what_no_weight_changes():
    prediction, _ = pairs()
    target = torch.poisson(prediction.exp(), generator=torch.Generator().manual_seed(1))
    deviance = metrics.mean_poisson_deviance(target.numpy(), prediction.exp().numpy())
    constant = float((torch.xlogy(target, target) - target).mean())

    assert deviance / 2 == pytest.approx(float(poisson(prediction, target)) + constant, rel=1e-10)


def test_huber_is_half_the_square_near_and_a_line_far_away():
    at = torch.tensor([0.5, -3.0], dtype=torch.float64)

    assert (0.125 + 2 * (3 - 1)) / 2 == float(huber(at, torch.zeros_like(at), delta=2.0))
    assert huber(at[:1], 0 * at[:1], delta=2.0) == mse(at[:1], 0 * at[:1]) / 2


@given(numbers)
def test_log_coshs_slope_is_tanh(error):
    assert math.tanh(error) == pytest.approx(slope(log_cosh, error), abs=1e-8)


@given(st.floats(-300, 300))
def test_log_cosh_is_its_formula_where_that_does_not_overflow(error):
    x = torch.tensor([error], dtype=torch.float64)

    assert math.log(math.cosh(error)) == pytest.approx(float(log_cosh(x, 0 * x)), rel=1e-9, abs=1e-9)


@given(numbers)
def test_the_slopes_are_those_of_the_page(error):
    assert 2 * error == slope(mse, error)
    assert np.sign(error) == slope(mae, error)
    assert np.clip(error, -1, 1) == slope(huber, error)


@given(st.integers(1, 9), st.integers(0, 100))
def test_the_best_constant_has_a_share_q_of_the_targets_below_it(tenth, seed):
    target = torch.randn(101, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort().values
    best = min(target, key=lambda c: float(quantile(c.expand(101), target, level=tenth / 10)))

    assert tenth / 10 == pytest.approx(float((target < best).double().mean()), abs=0.011)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_column_of_predictions_against_a_row_of_targets_is_refused(loss):
    message = (
        rf"^{loss.name} got predictions of shape \(3, 1\) and targets of shape \(3,\); "
        "expected one shape, or each would be compared with all others$"
    )
    with pytest.raises(SetupError, match=message):
        loss.function(torch.zeros(3, 1), torch.zeros(3))
