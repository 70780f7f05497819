"""What a job draws: words that are kept, windows, negatives."""

import numpy as np
import pytest

from chainrule.data.vocabulary import alias_table, in_32_bits, noise_distribution
from chainrule.train.words.blocks import block_end
from chainrule.train.words.draw import draw_negatives, stream
from chainrule.train.words.draw import select as select_words

COUNTS = np.array([1000, 300, 50, 7])
ALL = np.full(4, 2**32 - 1, np.uint32)
DRAWS = 200_000


def select(tokens, keep=ALL, seed=0, job=0, window=3, dynamic=True):
    tokens = np.array(tokens, np.int32)
    kept, first, last = (np.zeros(len(tokens), np.int32) for _ in range(3))
    count, _ = select_words(tokens, keep, np.uint64(stream(seed, 0, job)), kept, first, last, window, dynamic)
    return kept[:count], first[:count], last[:count]


def test_negatives_are_drawn_from_the_noise_distribution():
    probability = noise_distribution(COUNTS)
    own, alias = alias_table(probability)
    negative = np.zeros(DRAWS, np.int64)

    draw_negatives(in_32_bits(own), alias, np.uint64(5), negative, DRAWS)

    share = np.bincount(negative, minlength=4) / DRAWS
    assert np.all(np.abs(share - probability) < 5 * np.sqrt(probability * (1 - probability) / DRAWS))


def test_words_are_kept_with_their_probability():
    probability = np.array([0.1, 0.5, 0.9, 1.0])
    kept, _, _ = select(np.repeat(np.arange(4), DRAWS // 4), in_32_bits(probability))

    share = np.bincount(kept, minlength=4) / (DRAWS // 4)
    assert np.all(np.abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / (DRAWS // 4)))


def test_a_window_ends_where_the_sentence_ends():
    _, first, last = select([0, 1, 2, -1, 3, 0, -1, -1, 1], window=5, dynamic=False)

    assert [0, 0, 0, 3, 3, 5] == first.tolist()
    assert [3, 3, 3, 5, 5, 6] == last.tolist()


def test_a_sliding_window_has_its_whole_width():
    _, first, last = select([0] * 9, window=2, dynamic=False)

    assert [0, 0, 0, 1, 2, 3, 4, 5, 6] == first.tolist()
    assert [3, 4, 5, 6, 7, 8, 9, 9, 9] == last.tolist()


def test_dynamic_windows_of_all_widths_are_equally_likely():
    places = np.arange(DRAWS)[3:-3]
    _, first, last = select([0] * DRAWS, window=3)

    reach = places - first[3:-3]
    assert np.array_equal(reach, last[3:-3] - places - 1)
    deviation = np.sqrt(1 / 3 * 2 / 3 / len(places))
    assert np.bincount(reach)[1:] / len(places) == pytest.approx(np.full(3, 1 / 3), abs=5 * deviation)


def test_another_seed_or_job_draws_other_words_and_the_same_ones_the_same():
    keep = np.full(4, 2**31, np.uint32)
    tokens = [0, 1, 2, 3] * 20
    first = select(tokens, keep, seed=1, job=1)[0].tolist()

    assert first == select(tokens, keep, seed=1, job=1)[0].tolist()
    assert first != select(tokens, keep, seed=2, job=1)[0].tolist()
    assert first != select(tokens, keep, seed=1, job=2)[0].tolist()


def test_a_block_ends_before_a_word_stands_in_it_too_often():
    kept = np.array([0, 1, 0, 2, 0, 1, 1, 1], np.int32)

    assert 4 == block_end(kept, 0, 8, 64, 2)
    assert 7 == block_end(kept, 4, 8, 64, 2)
    assert 2 == block_end(kept, 0, 8, 2, 2)
    assert 8 == block_end(kept, 7, 8, 64, 2)
