"""The baseline: probabilities by hand, and a smoothing that never saw the validation text."""

import numpy as np
import pytest

from chainrule.data.bigram import bigram_loss, count, fit_bigram
from chainrule.data.windows import Windows

TOKENS = np.array([0, 1, 0, 1, 0, 2], dtype=np.int32)


def test_probabilities_are_those_of_the_formula():
    bigram = count(TOKENS, vocabulary=3, strength=2.0)
    # following tokens: 1 0 1 0 2, so p(0) = 3/8, p(1) = 3/8, p(2) = 2/8; after 0: 1 twice, 2 once
    expected = [(0 + 2 * 3 / 8) / 5, (2 + 2 * 3 / 8) / 5, (1 + 2 * 2 / 8) / 5]

    assert expected == pytest.approx(bigram.probability(np.zeros(3, np.int32), np.arange(3, dtype=np.int32)))


def test_probabilities_sum_to_one_also_after_a_token_that_was_never_seen():
    tokens = np.random.default_rng(0).integers(0, 50, 400).astype(np.int32)
    bigram = fit_bigram(tokens, vocabulary=60)
    for current in (0, 59):
        following = np.arange(60, dtype=np.int32)
        assert 1 == pytest.approx(bigram.probability(np.full(60, current, np.int32), following).sum())


def test_the_strength_is_the_best_on_held_out_training_tokens():
    rng = np.random.default_rng(1)
    chain = np.cumsum(rng.integers(0, 2, 5000)) % 20  # the next token is the same or one more
    noise = rng.integers(0, 20, 5000)

    assert fit_bigram(chain.astype(np.int32), 20).strength < 10
    assert fit_bigram(noise.astype(np.int32), 20).strength > 100


def test_the_loss_of_a_known_chain_approaches_its_entropy():
    rng = np.random.default_rng(2)
    chain = (np.cumsum(rng.integers(0, 2, 40_000)) % 20).astype(np.int32)
    bigram = fit_bigram(chain[:30_000], 20)

    assert np.log(2) == pytest.approx(bigram_loss(bigram, Windows(chain[30_000:], 16)), abs=0.01)


def test_the_baseline_is_measured_on_the_targets_of_the_windows():
    windows = Windows(np.array([0, 1, 0, 2, 1], np.int32), context=3)
    bigram = count(TOKENS, 3, strength=1.0)
    expected = -np.log(bigram.probability(np.array([0, 1, 0]), np.array([1, 0, 2]))).mean()

    assert expected == pytest.approx(bigram_loss(bigram, windows))
