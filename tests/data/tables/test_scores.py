"""Scores of predictions, each beside scikit-learn's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.tables.classification_scores import binary_scores, class_scores, confusion, roc_auc, share_scores
from chainrule.data.tables.regression_scores import mean_scores, regression_scores

metrics = pytest.importorskip("sklearn.metrics")

NUMBERS = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=40)


@given(NUMBERS)
def test_regression_scores_are_scikit_learn_s(pairs):
    y, predicted = np.array(pairs).T
    scores = regression_scores(y, predicted)

    assert metrics.mean_absolute_error(y, predicted) == pytest.approx(scores["MAE"])
    assert metrics.root_mean_squared_error(y, predicted) == pytest.approx(scores["RMSE"])
    if np.ptp(y) > 1e-3:
        assert metrics.r2_score(y, predicted) == pytest.approx(scores["R2"], rel=1e-6, abs=1e-6)


def test_r2_of_equal_targets_is_undefined():
    assert math.isnan(regression_scores(np.ones(3), np.zeros(3))["R2"])


def test_the_mean_of_the_measured_rows_has_r2_0():
    assert 0 == mean_scores(np.array([1.0, 2.0, 6.0]), 3.0)["R2"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.1, 0.3, 0.5, 0.7, 0.99, 1])), min_size=2, max_size=40))
def test_scores_of_two_classes_are_scikit_learn_s(pairs):
    y, probability = np.array([int(truth) for truth, _ in pairs]), np.array([p for _, p in pairs], dtype=float)
    chosen = (probability >= 0.5).astype(int)
    scores = binary_scores(y, probability)

    assert metrics.accuracy_score(y, chosen) == pytest.approx(scores["accuracy"])
    for name, ours in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        theirs = getattr(metrics, f"{name}_score")(y, chosen, zero_division=0)
        assert theirs == pytest.approx(scores[ours])
    if 0 < y.sum() < len(y):
        assert metrics.roc_auc_score(y, probability) == pytest.approx(scores["ROC AUC"])
        inside = np.clip(probability, 0.01, 0.99)
        assert metrics.log_loss(y, inside) == pytest.approx(binary_scores(y, inside)["log loss"])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 99))
def test_scores_of_several_classes_are_scikit_learn_s(classes, seed):
    y = np.array(classes)
    probability = np.random.default_rng(seed).dirichlet(np.ones(4), len(y))
    chosen = probability.argmax(axis=1)
    scores = class_scores(y, probability)

    assert metrics.accuracy_score(y, chosen) == pytest.approx(scores["accuracy"])
    assert metrics.f1_score(y, chosen, average="macro", zero_division=0) == pytest.approx(scores["macro F1"])
    assert metrics.log_loss(y, probability, labels=range(4)) == pytest.approx(scores["log loss"])
    assert metrics.confusion_matrix(y, chosen, labels=range(4)).tolist() == confusion(y, chosen, 4).tolist()


def test_the_area_under_the_curve_counts_ties_half_and_is_undefined_for_one_class():
    assert 0.5 == roc_auc(np.array([0, 1]), np.array([0.3, 0.3]))
    assert math.isnan(roc_auc(np.array([1, 1]), np.array([0.3, 0.4])))


def test_the_baseline_predicts_the_largest_class_and_its_share():
    scores = share_scores(np.array([0, 0, 0, 1]), np.array([0.75, 0.25]))

    assert 0.75 == scores["accuracy"]
    assert -0.75 * math.log(0.75) - 0.25 * math.log(0.25) == pytest.approx(scores["log loss"])


def test_a_probability_of_0_for_the_true_class_is_no_infinity():
    assert math.isfinite(class_scores(np.array([1]), np.array([[1.0, 0.0]]))["log loss"])
