"""The kernel's own exponential and logarithm against NumPy's in float64."""

import numpy as np
from numba import njit

from chainrule.train.words.arithmetic import LANES, exp_minus, log1p_unit, logistic, padded, zeros


@njit
def exponentials(values):
    return np.array([exp_minus(value) for value in values])


@njit
def logarithms(values):
    return np.array([log1p_unit(value) for value in values])


@njit
def steps(scores, labels, weights, rate):
    return logistic(scores, labels, weights, len(scores), rate)


def test_the_exponential_is_exact_to_float32_where_it_matters_and_never_overflows():
    a = np.linspace(0, 100, 5001).astype(np.float32)
    error = np.abs(exponentials(a) - np.exp(-a.astype(np.float64)))

    # The first term left out, r^7 / 7! with |r| <= ln(2) / 2, is 1.2e-7; a rounding is 6e-8; that of k ln(2) up to 1.8e-7.
    assert 2e-7 > error.max()
    assert 5e-7 > (error[a < 3] / np.exp(-a[a < 3].astype(np.float64))).max()


def test_the_logarithm_is_exact_to_float32():
    e = np.linspace(0, 1, 1001).astype(np.float32)

    # Three roundings of 6e-8; the first term left out, 2 s^17 / 17 with s <= 1/3, is 1e-9.
    assert 2e-7 > np.abs(logarithms(e) - np.log1p(e.astype(np.float64))).max()


def test_the_logistic_loss_and_its_step_are_the_formulas_at_any_score():
    scores = np.array([-200, -30, -3, -0.1, 0, 0.1, 3, 30, 200], np.float32)
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1], np.float32)
    weights = np.linspace(0.5, 2, 9).astype(np.float32)
    s = scores.astype(np.float64)

    done, padded_labels, padded_weights = (np.pad(array, (0, -len(s) % LANES)) for array in (scores, labels, weights))
    loss = steps(done, padded_labels, padded_weights, np.float32(0.1))
    done = done[: len(s)]

    # Loss: a float32 sum. Steps: 1 - σ(3) = 0.05 keeps a rounding of 6e-8, relatively 1.3e-6; 1 - σ(30) = 1e-13 is lost in it.
    assert np.isclose((weights * (np.logaddexp(0, s) - labels * s)).sum(), loss, rtol=1e-6)
    assert np.allclose(-0.1 * weights * (1 / (1 + np.exp(-s)) - labels), done, rtol=1e-5, atol=1e-8)


def test_rows_begin_at_cache_lines():
    assert [0, 0, 0] == [zeros(count).ctypes.data % 64 for count in (16, 112, 1120)]
    assert [16, 112, 1120] == [len(zeros(count)) for count in (16, 112, 1120)]


def test_rows_are_whole_registers():
    assert [16, 16, 32, 112] == [padded(dimensions) for dimensions in (1, 16, 17, 100)]
