"""From the model's outputs to what the user asked for: numbers in the target's own unit, or a probability a class.

R rows, O outputs, K classes
"""

from __future__ import annotations

import numpy as np

from chainrule.data.tables.classification_scores import class_scores, share_scores
from chainrule.data.tables.column import Floats
from chainrule.data.tables.regression_scores import mean_scores, regression_scores
from chainrule.data.tables.target import Target


def learned(y_R: Floats, target: Target) -> Floats:
    """What the model is to put out: standardised numbers; class numbers and counts as they are."""
    return (y_R - target.mean) / target.scale


def answers(outputs_RO: Floats, target: Target) -> Floats:
    """(R,) numbers, or (R, K) probabilities: the sigmoid of one logit, the softmax of several."""
    if target.goal == "regression":
        return np.exp(outputs_RO[:, 0]) if target.counts else outputs_RO[:, 0] * target.scale + target.mean
    # one logit for class 1 of two is two logits with a 0 for class 0
    logits_RK = outputs_RO if target.goal == "multi-class" else np.concatenate([0 * outputs_RO, outputs_RO], axis=1)
    shares_RK = np.exp(logits_RK - logits_RK.max(axis=1, keepdims=True))
    probabilities_RK: Floats = shares_RK / shares_RK.sum(axis=1, keepdims=True)
    return probabilities_RK


def constant_output(y_R: Floats, target: Target) -> Floats:
    """(O,) outputs of the baseline, from the training rows: always their mean, or the shares of the classes."""
    if target.goal == "regression":
        return np.array([np.log(max(y_R.mean(), 1e-9)) if target.counts else 0.0])
    log_share_K = np.log(class_shares(y_R, target))
    return log_share_K if target.goal == "multi-class" else log_share_K[1:] - log_share_K[:1]


def class_shares(y_R: Floats, target: Target) -> Floats:
    """(K,) shares of the classes in these rows; one row more in each class, so that none is impossible."""
    counts_K = np.bincount(y_R.astype(np.int64), minlength=len(target.classes)) + 1
    shares_K: Floats = counts_K / counts_K.sum()
    return shares_K


def scores_of(y_R: Floats, answer: Floats, target: Target) -> dict[str, float]:
    """The scores that people expect, by name."""
    return regression_scores(y_R, answer) if target.goal == "regression" else class_scores(y_R.astype(np.int64), answer)


def baseline_scores(y_R: Floats, training_R: Floats, target: Target) -> dict[str, float]:
    """The same of always answering the training mean, or the largest class with the shares in training."""
    if target.goal == "regression":
        return mean_scores(y_R, float(training_R.mean()))
    return share_scores(y_R.astype(np.int64), class_shares(training_R, target))
