"""Every token is predicted once an epoch, in an order that is a function of (seed, epoch, place)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.order import permuted, samples
from chainrule.data.windows import Windows, require_windows
from chainrule.errors import DataError


def test_targets_are_the_tokens_shifted_by_one():
    windows = Windows(np.arange(10, 23, dtype=np.int32), context=4)
    batch = windows.batch(np.array([2, 0]), torch.device("cpu"))

    assert 3 == len(windows)
    assert [[18, 19, 20, 21], [10, 11, 12, 13]] == batch["tokens"].tolist()
    assert [[19, 20, 21, 22], [11, 12, 13, 14]] == batch["targets"].tolist()


@given(st.integers(0, 200), st.integers(2, 9))
def test_every_token_is_predicted_once_but_the_first_and_a_rest_shorter_than_a_window(count, context):
    windows = Windows(np.arange(count, dtype=np.int32), context)
    targets = windows.rows(np.arange(len(windows)))[:, 1:].flatten()

    assert list(range(1, 1 + len(windows) * context)) == targets.tolist()
    assert count - 1 - len(targets) < context


def test_too_little_text_is_refused_with_the_ways_out():
    with pytest.raises(
        DataError, match=r"the training text holds 30 tokens, that is 3 windows .* 8 needed.*batch-size"
    ):
        require_windows(Windows(np.zeros(30, np.int32), 8), 8, "training")


@given(st.integers(1, 700), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    assert list(range(n)) == sorted(permuted(np.arange(n), n, seed, epoch).tolist())


def test_the_order_is_pinned_so_that_old_runs_can_be_resumed():
    assert [2, 7, 1, 3, 4, 0, 8, 5, 6, 9, 7, 2, 1, 9] == samples(0, 14, 10, seed=7).tolist()


def test_epochs_and_seeds_differ_and_all_places_are_equally_likely():
    n, draws = 16, 4000
    firsts = np.array([permuted(np.arange(n), n, seed=3, epoch=epoch) for epoch in range(draws)])
    expected = draws / n
    chi_square = (((np.apply_along_axis(np.bincount, 0, firsts, minlength=n) - expected) ** 2) / expected).sum()

    # (n - 1)^2 degrees of freedom, standard deviation sqrt(2 (n - 1)^2)
    assert (n - 1) ** 2 == pytest.approx(chi_square, abs=5 * np.sqrt(2) * (n - 1))
    assert permuted(np.arange(n), n, 3, 0).tolist() != permuted(np.arange(n), n, 4, 0).tolist()


def test_neighbours_do_not_stay_neighbours():
    order = permuted(np.arange(10_000), 10_000, seed=0, epoch=0)

    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 120))
def test_samples_go_on_from_any_position_as_if_never_stopped(n, consumed, count):
    whole = samples(0, consumed + count, n, seed=1)

    assert whole[consumed:].tolist() == samples(consumed, count, n, seed=1).tolist()


def test_each_epoch_visits_each_window_once_even_inside_a_batch():
    n = 7
    drawn = samples(0, 5 * n, n, seed=2).reshape(5, n)

    assert all(list(range(n)) == sorted(epoch.tolist()) for epoch in drawn)
