"""The known facts of softmax, entropy, cross entropy and divergence, as properties."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chainrule.losses.classification import cross_entropy
from chainrule.losses.distributions import kl_divergence, negative_log_likelihood

logits = arrays.arrays("float64", (3, 4), elements=st.floats(-30, 30)).map(torch.from_numpy)
outcomes = st.lists(st.integers(0, 3), min_size=3, max_size=3).map(torch.tensor)


def entropy(p):
    return torch.special.entr(p).sum(dim=-1).mean()


@given(logits)
def test_probabilities_are_positive_and_sum_to_1(x):
    p = torch.softmax(x, dim=-1)

    assert bool((p > 0).all())
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(3, dtype=torch.float64))


@given(logits, st.floats(-1e3, 1e3))
def test_softmax_does_not_see_a_shift_of_all_logits(x, shift):
    torch.testing.assert_close(torch.softmax(x + shift, dim=-1), torch.softmax(x, dim=-1), rtol=1e-9, atol=0)


@given(logits, logits)
def test_the_cross_entropy_is_never_below_the_entropy(x, z):
    p = torch.softmax(z, dim=-1)

    assert cross_entropy(x, p) >= entropy(p) - 1e-12
    assert kl_divergence(x, p) >= -1e-12


@given(logits)
def test_it_is_the_entropy_where_both_are_the_same(x):
    p = torch.softmax(x, dim=-1)

    torch.testing.assert_close(cross_entropy(x, p), entropy(p))
    assert pytest.approx(0, abs=1e-12) == float(kl_divergence(x, p))


@given(logits, logits)
def test_the_divergence_is_cross_entropy_less_entropy(x, z):
    p = torch.softmax(z, dim=-1)

    torch.testing.assert_close(kl_divergence(x, p), cross_entropy(x, p) - entropy(p), rtol=1e-9, atol=1e-9)


def test_neither_is_symmetric():
    even, sure = torch.zeros(1, 2), torch.tensor([[4.0, 0.0]])
    p, q = torch.softmax(even, -1), torch.softmax(sure, -1)

    assert abs(float(cross_entropy(sure, p) - cross_entropy(even, q))) > 1
    assert abs(float(kl_divergence(sure, p) - kl_divergence(even, q))) > 0.5


@given(logits, outcomes)
def test_the_cross_entropy_is_the_negative_log_likelihood_of_the_softmax(x, t):
    torch.testing.assert_close(cross_entropy(x, t), negative_log_likelihood(torch.log_softmax(x, -1), t))
    torch.testing.assert_close(cross_entropy(x, t), -torch.softmax(x, -1).gather(1, t[:, None]).log().mean())


@given(logits, logits)
def test_cross_entropy_and_divergence_have_the_gradient_p_minus_y(x, z):
    assume(not torch.equal(x, z))
    y = torch.softmax(z, dim=-1)
    for loss in (cross_entropy, kl_divergence):
        leaf = x.clone().requires_grad_()
        loss(leaf, y).backward()

        torch.testing.assert_close(leaf.grad, (torch.softmax(x, -1) - y) / 3, rtol=1e-9, atol=1e-12)


def test_an_outcome_of_probability_zero_adds_nothing():
    target = torch.tensor([[0.0, 1.0]])

    assert 0 == kl_divergence(torch.tensor([[-200.0, 200.0]]), target)


def test_ignored_outcomes_do_not_count():
    log_p = torch.log_softmax(torch.arange(6.0).reshape(2, 3) ** 2, -1)

    assert negative_log_likelihood(log_p[:1], torch.tensor([0])) == negative_log_likelihood(
        log_p, torch.tensor([0, -100])
    )
    assert 0 == negative_log_likelihood(log_p, torch.tensor([-100, -100]))
