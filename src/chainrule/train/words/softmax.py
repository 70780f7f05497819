"""The full softmax over a block, for small vocabularies: every word's score for every row.

    loss = Σ_row [ n_row log Σ_v exp(x_row · o_v) - Σ_targets x_row · o_target ]        n_row = targets of the row
    dL/ds_v = n_row softmax(s)_v - (how often v is a target)

One softmax serves all targets of a row.
"""

from __future__ import annotations

import math

import numpy as np

from chainrule.train.words.arithmetic import add_combination, add_multiples, add_row, clear, dots, exp_minus, inlined
from chainrule.train.words.blocks import targets


@inlined
def softmax_block(  # type: ignore[no-untyped-def]
    x, dx, r0, r1, start, end, outputs, rate, scratch, window, cbow, width
):
    """Gradient steps of the rows r0 ... r1 - 1 of `x`, in `dx`, and of all output rows; returns (loss, pairs).

    The list of places, four at a time, is filled up with the first row, the score of which is then set aside.
    """
    do, target, place, s = scratch.do, scratch.target, scratch.place, scratch.s
    words = len(outputs) // width
    count = words
    for v in range(words):
        place[v] = v * width
    while count % 4:
        place[count] = 0
        count += 1
    clear(do, 0, words * width)

    loss, pairs = 0.0, 0
    for r in range(r0, r1):
        n = targets(r, scratch.first, scratch.last, start, end, window, cbow, target)
        if n == 0:
            continue
        row = (r - r0) * width
        dots(x, row, outputs, place, count, s, width)
        loss -= sum_of_scores(s, scratch.kept, target, n)
        loss += n * to_probabilities(s, words, -rate * np.float32(n))
        for v in range(words, count):
            s[v] = 0
        for t in range(n):
            s[scratch.kept[target[t]]] += rate
        add_combination(dx, row, outputs, place, count, s, width)
        add_multiples(do, place, words, s, x, row, width)
        pairs += n
    for v in range(words):
        add_row(outputs, v * width, do, v * width, width)
    return loss, pairs


@inlined
def sum_of_scores(s, kept, target, n):  # type: ignore[no-untyped-def]
    """Σ s over n targets."""
    total = 0.0
    for t in range(n):
        total += s[kept[target[t]]]
    return total


@inlined
def to_probabilities(s, words, scale):  # type: ignore[no-untyped-def]
    """Turn scores into scale · softmax(s), in place; return log Σ exp(s), shifted by the largest so that none overflows."""
    largest = s[0]
    for v in range(words):
        largest = max(largest, s[v])
    total = np.float32(0)
    for v in range(words):
        s[v] = exp_minus(largest - s[v])
        total += s[v]
    for v in range(words):
        s[v] *= scale / total
    return np.float64(largest) + math.log(np.float64(total))
