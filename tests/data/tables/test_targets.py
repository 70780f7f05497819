"""What is to be predicted is found out from the target's values, with the reason; what cannot be predicted is refused."""

import numpy as np
import pytest

from chainrule.data.tables.column import Categories, Numbers
from chainrule.data.tables.target import Target, find_goal, make_target, values_of
from chainrule.errors import DataError


def numbers(*values, kind="number"):
    return Numbers("y", np.array(values, dtype=float), kind)


def words(*texts):
    labels = tuple(dict.fromkeys(text for text in texts if text))
    return Categories("y", np.array([labels.index(text) if text else -1 for text in texts]), labels)


@pytest.mark.parametrize(
    ("column", "goal"),
    [
        (numbers(0.5, 1.5, 2.5), ("regression", "3 different numbers")),
        (numbers(*range(100)), ("regression", "100 different numbers")),
        (numbers(*[10, 200, 5000] * 10), ("regression", "3 different numbers")),
        (numbers(0, 1, 1), ("binary", "2 different values")),
        (numbers(0, 1, np.nan, kind="boolean"), ("binary", "2 different values")),
        (words("no", "yes", ""), ("binary", "2 different words")),
        (words(*["a", "b", "c"] * 3), ("multi-class", "3 different words")),
        (numbers(*list(range(10)) * 5), ("multi-class", "10 whole numbers, 0 to 9")),
    ],
)
def test_the_goal_is_found_out_with_its_reason(column, goal):
    assert goal == find_goal(column)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (numbers(3, 3), "target 'y' has one value only, '3': there is nothing to learn"),
        (words("a", "a", ""), "target 'y' has one value only, 'a': there is nothing to learn"),
        (numbers(np.nan), "target 'y': every cell is missing"),
        (words(*"abcdef"), "target 'y' has 6 different words in 6 rows: too many to be classes"),
    ],
)
def test_a_target_with_nothing_to_predict_is_refused(column, words):
    with pytest.raises(DataError, match=words):
        find_goal(column)


@pytest.mark.parametrize(
    ("column", "goal", "words"),
    [
        (words("a", "b"), "regression", r"target 'y' holds words \('a', 'b'\): numbers are needed"),
        (numbers(1, 1), "regression", "has one value only"),
        (numbers(1, 2, 3), "binary", r"goal is 'binary' and target 'y' has 3 different values \('1', '2', '3'\)"),
        (numbers(1, 1), "multi-class", "has 1 different values .*two or more are needed"),
    ],
)
def test_a_goal_that_the_column_cannot_serve_is_refused(column, goal, words):
    with pytest.raises(DataError, match=words):
        make_target(column, goal)


def test_classes_of_numbers_stand_in_their_order_and_classes_of_words_in_the_alphabet_s():
    assert ("2", "10") == make_target(numbers(10, 2, 10), "binary").classes
    assert ("no", "yes") == make_target(words("yes", "no"), "binary").classes


def test_values_are_class_numbers_and_nan_where_missing_or_unknown():
    target = make_target(words("a", "b", "c"), "multi-class")

    np.testing.assert_equal([2, np.nan, 0, np.nan], values_of(words("c", "", "a", "d"), target))


def test_outputs_are_one_number_one_logit_or_one_a_class():
    assert [1, 1, 3] == [
        Target("y", "regression").outputs,
        Target("y", "binary", ("a", "b")).outputs,
        Target("y", "multi-class", ("a", "b", "c")).outputs,
    ]
