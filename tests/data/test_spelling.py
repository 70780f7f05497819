"""Which word a misspelt one is meant to be."""

import pytest

from chainrule.data.spelling import edits, nearest_spelling


@pytest.mark.parametrize(
    ("number", "a", "b"),
    [
        (0, "string", "string"),
        (1, "strnig", "string"),
        (2, "strnig", "strong"),
        (1, "king", "kin"),
        (1, "king", "wing"),
        (3, "kitten", "sitting"),
        (4, "", "king"),
        (3, "ca", "abc"),  # no letter is moved twice
    ],
)
def test_letters_left_out_put_in_replaced_and_swapped_count_one_each(number, a, b):
    assert number == edits(a, b) == edits(b, a)


def test_swapped_letters_are_nearer_than_replaced_ones_though_the_other_word_is_more_frequent():
    assert "string" == nearest_spelling("strnig", ("the", "strong", "string"))


def test_of_equally_near_words_the_more_frequent_is_meant():
    assert "king" == nearest_spelling("kins", ("king", "kind"))
    assert "kind" == nearest_spelling("kins", ("kind", "king"))


def test_a_word_that_is_near_to_none_has_no_suggestion():
    assert nearest_spelling("zebra", ("king", "queen")) is None
