"""Words by frequency, and the distributions that come from their counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.vocabulary import (
    Vocabulary,
    alias_table,
    in_32_bits,
    keep_probability,
    make_vocabulary,
    noise_distribution,
)
from chainrule.errors import DataError

COUNTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=200).map(lambda counts: np.array(counts, np.int64))


def test_words_are_ordered_by_count_and_words_of_one_count_by_their_letters():
    vocabulary = make_vocabulary({"b": 2, "c": 9, "a": 2, "rare": 1}, min_count=2)

    assert ("c", "a", "b") == vocabulary.words
    assert [9, 2, 2] == vocabulary.counts.tolist()
    assert 14 == vocabulary.raw_words
    assert {"c": 0, "a": 1, "b": 2} == dict(vocabulary.number)


def test_the_most_frequent_words_can_be_asked_for():
    assert ("c", "a") == make_vocabulary({"b": 2, "c": 9, "a": 2}, min_count=1, max_words=2).words


def test_too_few_words_are_refused():
    with pytest.raises(
        DataError,
        match=r"1 of 2 different words occur 5 times or more; two are needed: take more text or a smaller words.min_count",
    ):
        make_vocabulary({"a": 5, "b": 4}, min_count=5)


def test_a_word_is_kept_with_the_probability_of_the_authors_program():
    counts = np.array([900, 99, 1])

    expected = [min(1, (np.sqrt(f / 0.01) + 1) * 0.01 / f) for f in counts / 1000]

    assert expected == pytest.approx(keep_probability(counts, 0.01).tolist())
    assert [1, 1, 1] == keep_probability(counts, 0).tolist()


@given(COUNTS)
def test_the_noise_is_proportional_to_the_counts_to_the_power_of_three_quarters(counts):
    noise = noise_distribution(counts)

    assert pytest.approx(1) == noise.sum()
    assert (counts / counts[0]) ** 0.75 == pytest.approx(noise / noise[0])


@given(COUNTS)
def test_the_alias_table_is_the_distribution_itself(counts):
    probability = noise_distribution(counts)
    own, alias = alias_table(probability)

    drawn = own + np.bincount(alias, weights=1 - own, minlength=len(own))

    assert probability == pytest.approx(drawn / len(own))


def test_a_probability_of_one_is_always_drawn():
    assert [0, 2**31, 2**32 - 1] == in_32_bits(np.array([0, 0.5, 1])).tolist()


def test_a_vocabulary_has_as_many_entries_as_words():
    assert 2 == len(Vocabulary(("a", "b"), np.array([2, 1]), 3))
