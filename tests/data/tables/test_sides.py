"""Training, validation and test rows: by content, by number, by place; stratified; reproducible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.tables.column import Categories, Numbers
from chainrule.data.tables.sides import divide
from chainrule.errors import DataError

ROWS = 1000


def columns(rows=ROWS, seed=0):
    draw = np.random.default_rng(seed)
    return [
        Numbers("x", draw.normal(size=rows)),
        Categories("w", draw.integers(-1, 3, rows), ("a", "b", "c")),
    ]


def sides(columns, target, **changes):
    settings = {"classes": 0, "by": "content", "seed": 0, "validation_fraction": 0.2, "test_fraction": 0.1}
    return divide(columns, target, **(settings | changes))


@pytest.mark.parametrize("by", ["content", "index", "last"])
def test_each_row_with_a_target_is_on_one_side_and_the_shares_are_met(by):
    target = np.arange(ROWS, dtype=float)
    target[::10] = np.nan
    three = sides(columns(), target, by=by)
    together = np.concatenate([three.training, three.validation, three.test])

    assert np.flatnonzero(~np.isnan(target)).tolist() == sorted(together.tolist())
    assert (630, 180, 90) == (len(three.training), len(three.validation), len(three.test))


def test_classes_are_stratified():
    target = (np.arange(ROWS) % 20 == 0).astype(float)  # 5 % are of class 1
    three = sides(columns(), target, classes=2)

    assert [35, 10, 5] == [int(target[rows].sum()) for rows in (three.training, three.validation, three.test)]


def test_equal_rows_are_on_one_side():
    once = columns(100)
    thrice = [Numbers("x", np.tile(once[0].values, 3)), Categories("w", np.tile(once[1].codes, 3), ("a", "b", "c"))]
    three = sides(thrice, np.arange(300, dtype=float))

    for rows in (three.training, three.validation, three.test):
        assert 3 * len(set(rows % 100)) == len(rows)


@given(st.integers(0, 2**32))
def test_a_row_keeps_its_side_when_the_file_is_sorted_anew_and_its_words_are_numbered_otherwise(seed):
    x, w = columns(60)
    shuffled = np.random.default_rng(seed).permutation(60)
    renamed = Categories("w", np.array([1, 2, 0, -1])[w.codes][shuffled], ("c", "a", "b"))
    other = [renamed, Numbers("x", x.values[shuffled])]
    before = sides([x, w], np.zeros(60), seed=3)
    after = sides(other, np.zeros(60), seed=3)

    assert before.test.tolist() == sorted(shuffled[after.test].tolist())
    assert before.validation.tolist() == sorted(shuffled[after.validation].tolist())


def test_the_seed_chooses_the_rows():
    first, again, other = (sides(columns(), np.zeros(ROWS), seed=seed).test.tolist() for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_the_last_rows_are_the_test_and_those_before_them_the_validation():
    three = sides([], np.zeros(10), by="last")

    assert (list(range(7)), [7, 8], [9]) == (three.training.tolist(), three.validation.tolist(), three.test.tolist())


def test_no_test_side_may_be_asked_for():
    assert 0 == len(sides(columns(), np.zeros(ROWS), test_fraction=0).test)


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="2 rows with a target are too few, or too alike, for a test side"):
        sides([Numbers("x", np.arange(2.0))], np.zeros(2))


def test_the_rule_is_told():
    assert "by a hash of each row's content, so that equal rows are on one side, each class by itself" == (
        sides(columns(), np.arange(ROWS) % 2.0, classes=2).rule
    )
