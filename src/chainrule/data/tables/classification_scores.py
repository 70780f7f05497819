"""How good predicted probabilities of classes are, beside the shares that the classes have in training.

    accuracy = share of rows whose most probable class is the true one
    precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2 TP / (2 TP + FP + FN)    0 where undefined
    ROC AUC = P(a positive row scores above a negative one), ties count half: (rank sum of positives - n₊(n₊+1)/2) / n₊n₋
    log loss = mean of -log p(true class)

R rows, K classes
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data.tables.column import Codes, Floats

SMALLEST = float(np.finfo(np.float64).tiny)


def confusion(y_R: Codes, predicted_R: Codes, classes: int) -> NDArray[np.int64]:
    """(K, K) counts: row = true class, column = predicted class."""
    return np.bincount(y_R * classes + predicted_R, minlength=classes**2).reshape(classes, classes)


def class_scores(y_R: Codes, probability_RK: Floats) -> dict[str, float]:
    """Of two classes: accuracy, precision, recall, F1, ROC AUC, log loss; of more: accuracy, macro F1, log loss."""
    return (
        binary_scores(y_R, probability_RK[:, 1]) if probability_RK.shape[1] == 2 else many_scores(y_R, probability_RK)
    )


def binary_scores(y_R: Codes, probability_R: Floats) -> dict[str, float]:
    """Scores of the probability of class 1, which is predicted from one half on."""
    (_, false_positive), (false_negative, true_positive) = confusion(y_R, (probability_R >= 0.5).astype(np.int64), 2)
    return {
        "accuracy": float(((probability_R >= 0.5) == (y_R == 1)).mean()),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": _ratio(true_positive, true_positive + false_negative),
        "F1": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "ROC AUC": roc_auc(y_R, probability_R),
        "log loss": log_loss(y_R, np.stack([1 - probability_R, probability_R], axis=1)),
    }


def many_scores(y_R: Codes, probability_RK: Floats) -> dict[str, float]:
    """Scores of several classes; macro F1 is the plain mean over the classes that are true or predicted somewhere."""
    counts_KK = confusion(y_R, probability_RK.argmax(axis=1), probability_RK.shape[1])
    of_K = counts_KK.sum(axis=1) + counts_KK.sum(axis=0)
    f1_K = 2 * np.diag(counts_KK)[of_K > 0] / of_K[of_K > 0]
    return {
        "accuracy": float(np.trace(counts_KK) / counts_KK.sum()),
        "macro F1": float(f1_K.mean()),
        "log loss": log_loss(y_R, probability_RK),
    }


def share_scores(y_R: Codes, share_K: Floats) -> dict[str, float]:
    """The baseline's: always the largest class; its probabilities are the shares in training."""
    return class_scores(y_R, np.broadcast_to(share_K, (len(y_R), len(share_K))))


def log_loss(y_R: Codes, probability_RK: Floats) -> float:
    """Mean of -log p(true class), in nats; a probability of 0 counts as the smallest normal float."""
    true_R = np.take_along_axis(probability_RK, y_R[:, None], axis=1)
    return float(-np.log(np.maximum(true_R, SMALLEST)).mean())


def roc_auc(y_R: Codes, score_R: Floats) -> float:
    """Area under the receiver operating characteristic; nan unless both classes are there."""
    positives = int((y_R == 1).sum())
    negatives = len(y_R) - positives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = np.unique(score_R, return_inverse=True, return_counts=True)
    rank_R = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank_R[y_R == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
