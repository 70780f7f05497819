"""Huffman's tree: short codes for frequent words, probabilities that sum to 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.huffman import huffman

COUNTS = st.lists(st.integers(1, 1000), min_size=2, max_size=60).map(lambda counts: np.array(sorted(counts)[::-1]))


def probabilities(tree, score):
    """p(word) by logistic decisions along each path."""
    p = 1 / (1 + np.exp(-np.where(tree.code == 1, -score[tree.path], score[tree.path])))
    return np.where(np.arange(tree.path.shape[1]) < tree.length[:, None], p, 1).prod(axis=1)


@given(COUNTS, st.integers(0, 99))
def test_the_probabilities_of_all_words_sum_to_one(counts, seed):
    score = np.random.default_rng(seed).standard_normal(len(counts) - 1) * 3

    assert pytest.approx(1) == probabilities(huffman(counts), score).sum()


@given(COUNTS)
def test_the_mean_code_is_at_most_one_turn_longer_than_the_entropy(counts):
    p = counts / counts.sum()
    entropy = -(p * np.log2(p)).sum()

    assert entropy - 1e-9 <= (p * huffman(counts).length).sum() <= entropy + 1


def test_the_tree_of_a_small_vocabulary_is_the_one_of_pencil_and_paper():
    tree = huffman(np.array([5, 2, 1]))  # (1 + 2) first, then that with 5

    assert [1, 2, 2] == tree.length.tolist()
    assert [0, 0, 0] == tree.path[:, 0].tolist()
    assert [1, 1] == tree.path[1:, 1].tolist()
    assert [1, 0, 0] == tree.code[:, 0].tolist()
    assert [1, 0] == tree.code[1:, 1].tolist()


@given(COUNTS)
def test_every_inner_node_is_on_a_path(counts):
    tree = huffman(counts)
    on_path = np.arange(tree.path.shape[1]) < tree.length[:, None]

    assert set(range(len(counts) - 1)) == set(tree.path[on_path].tolist())
