"""Losses of words, against written-out sums; the tree's probabilities sum to 1."""

import pytest
import torch
import torch.nn.functional as F

from chainrule.losses.language import full_softmax, hierarchical_softmax, negative_sampling, perfect_tree


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONTEXT, WORDS, TARGET = normal(0, 4, 3), normal(1, 8, 3), torch.tensor([0, 5, 7, 5])


def test_the_full_softmax_is_the_negative_log_probability_of_the_word():
    p = torch.softmax(CONTEXT @ WORDS.mT, dim=-1)

    torch.testing.assert_close(full_softmax(CONTEXT, WORDS, TARGET), -p[range(4), TARGET].log().mean())


def test_negative_sampling_is_a_sum_of_log_losses():
    noise = torch.tensor([[1, 2], [3, 4], [6, 0], [1, 1]])
    right = F.binary_cross_entropy(torch.sigmoid((WORDS[TARGET] * CONTEXT).sum(1)), torch.ones(4).double())
    wrong = torch.sigmoid(torch.einsum("nkd,nd->nk", WORDS[noise], CONTEXT))
    expected = right + F.binary_cross_entropy(wrong, torch.zeros(4, 2).double()) * 2

    torch.testing.assert_close(negative_sampling(CONTEXT, WORDS, TARGET, noise), expected)


def test_a_noise_word_that_is_the_target_does_not_count():
    noise = torch.tensor([[1, 2], [3, 4], [6, 0], [1, 1]])
    with_targets = torch.cat([noise, TARGET[:, None]], dim=1)

    torch.testing.assert_close(
        negative_sampling(CONTEXT, WORDS, TARGET, with_targets), negative_sampling(CONTEXT, WORDS, TARGET, noise)
    )


def test_the_probabilities_of_all_leaves_of_a_tree_sum_to_1():
    path, turn = perfect_tree(torch.arange(8), depth=3)
    nodes = normal(2, 7, 3)
    p = [
        torch.exp(-hierarchical_softmax(CONTEXT[:1], nodes, path[word : word + 1], turn[word : word + 1]))
        for word in range(8)
    ]

    assert pytest.approx(1) == float(sum(p))


def test_every_leaf_of_a_tree_has_its_own_path():
    path, turn = perfect_tree(torch.arange(8), depth=3)

    assert 8 == len({(*p, *t) for p, t in zip(path.tolist(), turn.tolist(), strict=True)})
    assert [0, 1, 3] == path[0].tolist()
    assert [0, 2, 6] == path[7].tolist()


def test_what_follows_the_end_of_a_path_does_not_count():
    nodes = normal(2, 7, 3)
    path, turn = perfect_tree(torch.tensor([3]), depth=3)
    longer = F.pad(path, (0, 2), value=-1), F.pad(turn, (0, 2), value=1)

    torch.testing.assert_close(
        hierarchical_softmax(CONTEXT[:1], nodes, *longer), hierarchical_softmax(CONTEXT[:1], nodes, path, turn)
    )
