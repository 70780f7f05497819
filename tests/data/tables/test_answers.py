"""From outputs to answers, and the baseline's constant outputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.tables.answers import answers, baseline_scores, constant_output, learned, scores_of
from chainrule.data.tables.target import Target

NUMBER = Target("y", "regression", mean=10.0, scale=4.0)
COUNT = Target("y", "regression", counts=True)
TWO = Target("y", "binary", ("no", "yes"))
THREE = Target("y", "multi-class", ("a", "b", "c"))


@given(st.floats(-1e6, 1e6))
def test_what_is_learned_of_a_number_comes_back_as_the_number(value):
    y = np.array([value])

    assert value == pytest.approx(answers(learned(y, NUMBER)[:, None], NUMBER)[0], rel=1e-9, abs=1e-6)


def test_counts_are_the_exponential_of_the_output():
    assert [1.0, pytest.approx(np.e)] == answers(np.array([[0.0], [1.0]]), COUNT).tolist()


def test_one_logit_is_the_probability_of_the_second_class_and_several_are_a_softmax():
    logits = torch.randn(7, 3).double()

    np.testing.assert_allclose(logits[:, :1].sigmoid().numpy()[:, 0], answers(logits[:, :1].numpy(), TWO)[:, 1])
    np.testing.assert_allclose(logits.softmax(1).numpy(), answers(logits.numpy(), THREE))


def test_huge_logits_are_certain_and_no_nan():
    assert [[1, 0], [0, 1]] == answers(np.array([[-1e4], [1e4]]), TWO).tolist()


def test_the_baseline_s_outputs_are_the_mean_and_the_shares_with_one_row_more_in_each_class():
    y = np.array([0.0, 0, 0, 0, 1, 1])

    assert [0.0] == constant_output(y, NUMBER).tolist()
    assert pytest.approx([np.log(1 / 3)]) == constant_output(y, COUNT).tolist()
    assert [[5 / 8, 3 / 8]] == pytest.approx(answers(constant_output(y, TWO)[None], TWO))
    assert [[5 / 9, 3 / 9, 1 / 9]] == pytest.approx(answers(constant_output(y, THREE)[None], THREE))


def test_each_goal_has_the_scores_that_people_expect_and_its_baseline_the_same():
    y, found = np.array([0.0, 1.0, 1.0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])

    assert ["R2", "MAE", "RMSE"] == list(scores_of(y, y, NUMBER)) == list(baseline_scores(y, y, NUMBER))
    names = ["accuracy", "precision", "recall", "F1", "ROC AUC", "log loss"]
    assert names == list(scores_of(y, found, TWO)) == list(baseline_scores(y, y, TWO))
    three = np.concatenate([found, np.zeros((3, 1))], axis=1)
    assert ["accuracy", "macro F1", "log loss"] == list(scores_of(y, three, THREE))
