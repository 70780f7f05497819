"""Columns that cannot be learned from are left out, each with its reason; what was kept on purpose stays."""

import numpy as np
import pytest

from chainrule.data.tables.column import Categories, Numbers, Table
from chainrule.data.tables.useful import useful, why_useless


def numbers(*values, name="x"):
    return Numbers(name, np.array(values, dtype=float))


def words(*texts, name="w"):
    labels = tuple(dict.fromkeys(text for text in texts if text))
    return Categories(name, np.array([labels.index(text) if text else -1 for text in texts]), labels)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (numbers(5, 5, 5), "every cell is 5"),
        (words("a", "a"), "every cell is 'a'"),
        (numbers(np.nan, np.nan), "every cell is missing"),
        (numbers(*range(25)), "counts the rows: an identifier"),
        (numbers(*range(1, 26)), "counts the rows: an identifier"),
        (
            numbers(7, 3, 9, name="customer_id"),
            "a different whole number in each row, and its name says so: an identifier",
        ),
        (words(*(f"name {i}" for i in range(30))), "30 different words in 30 rows: an identifier or free text"),
    ],
)
def test_a_column_that_says_nothing_is_left_out(column, reason):
    assert reason == why_useless(column)


@pytest.mark.parametrize(
    "column",
    [
        numbers(5, 5, np.nan),  # that a cell is missing may say something
        words("a", "", "a"),
        numbers(*range(1900, 1930)),  # years
        numbers(7, 3, 9, name="paid"),
        numbers(7.5, 3, 9, name="x_id"),
        words(*"abcdefghij"),  # too few rows to tell
        words(*"ab" * 20),
    ],
)
def test_a_column_that_may_say_something_stays(column):
    assert "" == why_useless(column)


def test_the_user_s_wishes_win():
    table = Table("t.csv", 30, (numbers(*range(30), name="day"), numbers(*range(5, 35), name="y"), words(*"ab" * 15)))
    inputs, target = useful(table, "y", drop=("w",), keep=("day",))

    assert (["day"], "y") == (inputs.names, target.name)
    assert (("w", "as asked (table.drop)"),) == inputs.dropped
