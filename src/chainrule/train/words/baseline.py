"""What a model must beat that knows only how frequent words are: the same score for a word, whatever stands around it.

    p(w)  share of w among the words that sub-sampling leaves      n(w)  noise distribution

    softmax, hierarchical   H(p) = -Σ p log p
    negative sampling       min over s of  Σ_w [ p softplus(-s) + K n (1 - p) softplus(s) ],   s_w = log(p / (K n (1 - p)))

the latter with the negatives left out that are the target itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chainrule.data.vocabulary import keep_probability, noise_distribution
from chainrule.train.words.shape import Objective


def frequency_loss(counts: NDArray[np.int64], sample: float, objective: Objective, negatives: int) -> float:
    """The loss of the best such model, in nats for each predicted word."""
    kept = counts * keep_probability(counts, sample)
    p = kept / kept.sum()
    if objective != "negative":
        return float(-(p * np.log(p)).sum())
    false = negatives * noise_distribution(counts) * (1 - p)
    score = np.log(p) - np.log(false)
    return float((p * np.logaddexp(0, -score) + false * np.logaddexp(0, score)).sum())
