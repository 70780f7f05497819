"""A loss for a column of targets: from the kind of target, outliers, imbalance and counts, with the figures that were seen."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from chainrule.errors import DataError
from chainrule.losses.called import loss_called
from chainrule.losses.outliers import spread
from chainrule.losses.recommend import recommend
from chainrule.losses.targets import targets_of

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=1000)
FEW_FAR = np.concatenate([NORMAL[:980], RANDOM.normal(0, 30, 20)])


@pytest.mark.parametrize(
    ("loss", "column"),
    [
        ("mse", datasets.load_diabetes().target),
        ("log-loss", datasets.load_breast_cancer().target),
        ("cross-entropy", datasets.load_digits().target),
        ("cross-entropy", datasets.load_wine().target),
        ("cross-entropy", np.array(["setosa", "versicolor", "virginica"])[datasets.load_iris().target]),
        ("mse", NORMAL),
        ("huber", FEW_FAR),
        ("mae", RANDOM.standard_cauchy(1000)),
        ("poisson", RANDOM.poisson(3, 500)),
        ("log-loss", RANDOM.random(1000) < 0.05),
        ("binary-focal", RANDOM.random(5000) < 0.004),
    ],
    ids=[
        "diabetes",
        "breast cancer",
        "digits",
        "wine",
        "iris by name",
        "normal",
        "2 % far off",
        "Cauchy",
        "Poisson counts",
        "5 % positive",
        "0.4 % positive",
    ],
)
def test_the_loss_fits_the_data(loss, column):
    assert loss == recommend(column).loss.name


def test_hubers_delta_is_1_345_scales_of_the_bulk_whatever_the_outliers_are():
    assert 1.345 * np.std(NORMAL) == pytest.approx(recommend(FEW_FAR).settings["delta"], rel=0.15)
    assert recommend(FEW_FAR * 1000).settings["delta"] == pytest.approx(
        1000 * recommend(FEW_FAR).settings["delta"], rel=0.01
    )


@pytest.mark.parametrize(
    ("column", "lines"),
    [
        (NORMAL, 'loss = "mse"'),
        (np.repeat([0, 1], [950, 50]), 'loss = "log-loss(positive_weight=19)"'),
        (np.repeat(["a", "b", "c"], [900, 80, 20]), 'loss = "cross-entropy"\n[table]\nclass_weights = "balanced"'),
        (np.repeat([0, 1], [4990, 10]), 'loss = "binary-focal(gamma=2, alpha=0.25)"'),
    ],
    ids=["numbers", "two classes", "three classes", "rare"],
)
def test_what_to_write_in_a_file_of_settings_is_said(column, lines):
    assert lines == recommend(column).in_run


def test_there_delta_is_in_units_of_the_standardised_target():
    found = recommend(FEW_FAR)

    assert found.settings["delta"] / np.std(FEW_FAR) == pytest.approx(
        loss_called(found.in_run[8:-1])[1]["delta"], rel=0.01
    )


def test_the_weight_of_the_positive_class_makes_both_count_alike():
    rare = np.repeat([0, 1], [950, 50])

    assert {"positive_weight": 19.0} == recommend(rare).settings
    assert {"positive_weight": 0.0526} == recommend(1 - rare).settings
    assert {} == recommend(np.repeat([0, 1], [850, 150])).settings


def test_focals_alpha_favours_the_rare_class_whichever_it_is():
    rare = np.repeat([0, 1], [4990, 10])

    assert 0.25 == recommend(rare).settings["alpha"]
    assert 0.75 == recommend(1 - rare).settings["alpha"]


def test_weights_of_uneven_classes_are_those_that_scikit_learn_calls_balanced():
    from sklearn.utils.class_weight import compute_class_weight

    column = np.repeat(["a", "b", "c"], [900, 80, 20])
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=column)

    assert expected == pytest.approx(recommend(column).settings["weight"], rel=0.005)


def test_the_reasons_name_the_figures():
    found = recommend(FEW_FAR)

    assert found.reasons[0].startswith("1.80% of the targets are far off, up to 42 scales")
    assert ("rows", "1,000") in found.seen
    assert "numbers: 1,000 distinct values, not all of them integers" == dict(found.seen)["targets"]


def test_targets_over_orders_of_magnitude_are_told_of_their_logarithm():
    reasons = " ".join(recommend(RANDOM.lognormal(3, 1, 1000)).reasons)

    assert "all are positive: consider their logarithm as target." in reasons


def test_more_variance_than_poisson_counts_have_is_told():
    reasons = " ".join(recommend(RANDOM.negative_binomial(1, 0.1, 500)).reasons)

    assert "times the mean, of Poisson counts it is once" in reasons


def test_a_class_of_few_rows_is_told():
    reasons = recommend(np.repeat(["a", "b", "c"], [50, 40, 3])).reasons

    assert "c has fewer than 10 rows: no loss makes up for missing examples." == reasons[-1]


# --- what a column holds ------------------------------------------------------------------------------------------------


def test_missing_targets_are_counted_and_left_out():
    targets = targets_of([1.5, None, 2.5, float("nan"), "", 3.25])

    assert 3 == targets.missing
    assert [1.5, 2.5, 3.25] == targets.values.tolist()


def test_numbers_that_were_read_as_words_are_numbers():
    assert "numbers" == targets_of(["1.5", "2.5", "-3e2"]).kind


def test_what_the_user_knows_wins_and_the_difference_is_said():
    targets = targets_of(datasets.load_digits().target, kind="numbers")

    assert "numbers" == targets.kind
    assert targets.reason.startswith("as given; the values look like classes: integers from 0 to 9")


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ([], None, "the target column holds no value"),
        ([None, ""], None, r"holds no value \(2 are missing\); nothing can be learned from it"),
        ([3, 3, 3], None, "holds one value only, 3, 3 times; nothing to learn"),
        (["a", "b", "c"], "numbers", "targets are to be numbers, but 'a' is no number"),
        ([0, 1, 2], "binary", "targets are to be binary, but the column holds 3 distinct values"),
        ([f"row {i}" for i in range(100)], None, "100 distinct values in 100 rows: the column names rows, not classes"),
        (
            [1.0, 2.0, float("inf")],
            None,
            "the target column holds inf, which float32 cannot hold; remove such rows, or change the unit",
        ),
    ],
)
def test_a_column_from_which_nothing_can_be_learned_is_refused(column, kind, words):
    with pytest.raises(DataError, match=words):
        targets_of(column, kind=kind)


@given(st.lists(st.one_of(st.floats(allow_nan=True), st.integers(), st.text(max_size=5), st.booleans(), st.none())))
def test_any_column_gets_a_loss_or_a_reason(column):
    with contextlib.suppress(DataError):
        found = recommend(column)
        assert found.reasons
        assert found.loss.target in ("numbers", "counts", "binary", "classes")


# --- outliers -----------------------------------------------------------------------------------------------------------


def test_the_scale_of_normal_numbers_is_their_standard_deviation():
    assert np.std(NORMAL) == pytest.approx(spread(NORMAL).scale, rel=0.06)


@given(st.integers(0, 100), st.floats(0.01, 100), st.floats(-100, 100))
def test_outliers_do_not_depend_on_the_unit(seed, factor, shift):
    values = np.random.default_rng(seed).standard_cauchy(200)

    assert spread(values).outliers == pytest.approx(spread(factor * values + shift).outliers, abs=0.006)


def test_a_column_of_zeros_with_some_numbers_has_the_scale_of_the_numbers():
    values = np.concatenate([np.zeros(80), np.full(20, 2.0)])

    assert 1.4826 * 2 == spread(values).scale
