"""The preprocessing is fitted on training rows only, is data, and meets new rows without surprise."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chainrule.data.tables.apply import inputs_of
from chainrule.data.tables.column import Categories, Numbers, Table
from chainrule.data.tables.fit import fit, moments
from chainrule.data.tables.preprocess import Preprocessing
from chainrule.data.tables.target import Target
from chainrule.errors import DataError


def words(name, *texts):
    labels = tuple(dict.fromkeys(text for text in texts if text))
    return Categories(name, np.array([labels.index(text) if text else -1 for text in texts]), labels)


def numbers(name, *values):
    return Numbers(name, np.array(values, dtype=float))


def table(*columns):
    return Table("t.csv", len(columns[0].missing), columns)


def fitted(columns, training=None, target=None, **changes):
    whole = table(*columns)
    target_R = np.arange(whole.rows, dtype=float) if target is None else target
    settings = {"max_categories": 10, "min_rows": 1} | changes
    rows = np.arange(whole.rows) if training is None else np.array(training)
    return fit(whole, Target("y", "regression"), target_R, rows, **settings)


def test_inputs_have_mean_0_and_deviation_1_on_the_training_rows_only():
    draw = np.random.default_rng(0)
    x = numbers("x", *draw.normal(5, 3, 80), *draw.normal(100, 50, 20))
    preprocessing, _ = fitted([x], training=range(80))
    inputs, _ = inputs_of(table(x), preprocessing)

    np.testing.assert_allclose([0, 1], [inputs[:80].mean(), inputs[:80].std()], atol=1e-6)
    assert inputs[80:].mean() > 10


def test_what_validation_rows_hold_changes_nothing():
    before, _ = fitted([numbers("x", 1, 2, 3, 4), words("w", "a", "b", "a", "c")], training=[0, 1, 2])
    after, _ = fitted([numbers("x", 1, 2, 3, 9e9), words("w", "a", "b", "a", "z")], training=[0, 1, 2])

    assert before == after


def test_a_missing_number_is_the_median_and_an_indicator():
    x = numbers("x", 1, 2, np.nan, 9)
    preprocessing, _ = fitted([x])
    inputs, remarks = inputs_of(table(x), preprocessing)
    filled = np.array([1, 2, 2, 9])

    assert ["x", "x is missing"] == preprocessing.inputs
    np.testing.assert_allclose((filled - filled.mean()) / filled.std(), inputs[:, 0], rtol=1e-6)
    assert [0, 0, 1, 0] == inputs[:, 1].tolist()
    assert [] == remarks


def test_categories_are_one_hot_and_missing_ones_have_an_input_of_their_own():
    w = words("w", "b", "a", "", "b")
    preprocessing, _ = fitted([w])

    assert ["w is 'a'", "w is 'b'", "w is missing"] == preprocessing.inputs
    assert [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]] == inputs_of(table(w), preprocessing)[0].tolist()


def test_rare_words_are_pooled_and_unseen_ones_join_them():
    w = words("w", *"aaabbbcd")
    preprocessing, _ = fitted([w], min_rows=2)

    assert ["w is 'a'", "w is 'b'", "w is another word"] == preprocessing.inputs
    inputs, remarks = inputs_of(table(words("w", "c", "new", "a")), preprocessing)
    assert [[0, 0, 1], [0, 0, 1], [1, 0, 0]] == inputs.tolist()
    assert [] == remarks


def test_only_the_most_frequent_words_have_an_input():
    preprocessing, _ = fitted([words("w", *"aaabbbccdd")], max_categories=2)

    assert ["w is 'a'", "w is 'b'", "w is another word"] == preprocessing.inputs


def test_an_unseen_word_where_none_was_rare_is_all_zero_and_told():
    preprocessing, _ = fitted([words("w", *"aabb")])
    inputs, remarks = inputs_of(table(words("w", "c", "", "b")), preprocessing)

    assert [[0, 0], [0, 0], [0, 1]] == inputs.tolist()
    assert [
        "'w': 1 cell with words that training has not seen ('c')",
        "'w': 1 missing cell, in training there were none; its inputs are all 0",
    ] == remarks


def test_a_number_missing_where_none_was_in_training_is_the_median_and_told():
    preprocessing, _ = fitted([numbers("x", 1, 2, 3)])
    inputs, remarks = inputs_of(table(numbers("x", np.nan)), preprocessing)

    assert [[0]] == inputs.tolist()
    assert ["'x': 1 missing cell, in training there were none; the median 2 is taken"] == remarks


def test_columns_are_found_by_name_in_any_order_and_more_of_them_do_no_harm():
    x, w = numbers("x", 1, 2, 3), words("w", "a", "b", "a")
    preprocessing, _ = fitted([x, w])

    np.testing.assert_equal(
        inputs_of(table(x, w), preprocessing)[0], inputs_of(table(w, numbers("z", 7, 8, 9), x), preprocessing)[0]
    )


def test_missing_columns_are_refused_by_name():
    preprocessing, _ = fitted([numbers("x", 1, 2, 3), words("w", "a", "b", "a")])
    with pytest.raises(DataError, match=r"t\.csv has no column 'w', which the model needs; it has 'x'"):
        inputs_of(table(numbers("x", 1)), preprocessing)


def test_words_where_numbers_were_are_refused_and_numbers_where_words_were_are_words():
    preprocessing, _ = fitted([numbers("x", 1, 2, 3), words("w", "1", "2", "1")])
    with pytest.raises(DataError, match=r"column 'x' holds words \('red'\); in training it held numbers"):
        inputs_of(table(words("x", "red"), words("w", "1")), preprocessing)

    assert [1, 0] == inputs_of(table(numbers("x", 1), numbers("w", 1)), preprocessing)[0][0, 1:].tolist()


def test_columns_that_are_constant_in_the_training_rows_are_left_out_with_the_reason():
    columns = [numbers("x", 1, 2, 3), numbers("c", 5, 5, 6), words("w", "a", "a", "b"), numbers("m", np.nan, np.nan, 1)]
    preprocessing, dropped = fitted(columns, training=[0, 1])

    assert ["x"] == preprocessing.inputs
    assert [
        ("c", "every training row is 5"),
        ("w", "all training rows are the same"),
        ("m", "every training row is missing"),
    ] == dropped


def test_a_table_without_a_usable_column_is_refused():
    with pytest.raises(DataError, match=r"t\.csv has no column to predict 'y' from: 'c': every training row is 5"):
        fitted([numbers("c", 5, 5)])


def test_a_regression_target_is_standardised_by_its_training_rows():
    preprocessing, _ = fitted([numbers("x", 1, 2, 3)], training=[0, 1], target=np.array([10.0, 20.0, 99.0]))

    assert (15, 5) == (preprocessing.target.mean, preprocessing.target.scale)


def test_it_is_json_and_comes_back_equal():
    preprocessing, _ = fitted([numbers("x", 1, np.nan, 1 / 3), words("w", "a", "", "é")])

    assert preprocessing == Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))


@given(arrays(float, st.integers(1, 30), elements=st.floats(-1.7e308, 1.7e308)))
def test_moments_are_finite_for_all_finite_numbers_and_a_spread_is_never_invented(values):
    mean, scale = moments(values)

    assert np.isfinite([mean, scale]).all()
    assert scale >= 0
    if (values == values[0]).all():
        assert 0 == scale


@given(
    arrays(float, st.integers(3, 20), elements=st.one_of(st.just(np.nan), st.floats(-1e300, 1e300))),
    st.lists(st.sampled_from(["a", "b", "", "long word"]), min_size=20, max_size=20),
)
def test_inputs_are_always_finite(values, texts):
    columns = [Numbers("x", values), words("w", *texts[: len(values)]), numbers("ok", *range(len(values)))]
    preprocessing, _ = fitted(columns)
    inputs, _ = inputs_of(table(*columns), preprocessing)

    assert np.isfinite(inputs).all()
    assert (len(values), preprocessing.width) == inputs.shape
