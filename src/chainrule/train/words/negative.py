"""Negative sampling over a block: true centres against words of the noise distribution, shared by a group of rows.

    loss = Σ_(row, centre) [ softplus(-x_row · o_centre) + (K / S) Σ_s [n_s != centre] softplus(x_row · o_(n_s)) ]

Mikolov et al. 2013 ("Distributed Representations of Words and Phrases", equation 4) draw K negatives for each pair. Here S
are drawn for a group of rows, each weighing K / S: the same expected loss and gradient, but the negatives' rows are read
from memory and written back once for the group, not once for each pair (Ji et al. 2016, "Parallelizing Word2Vec in
Shared and Distributed Memory"). A negative that is the centre itself is left out for that pair, as in word2vec.
"""

from __future__ import annotations

import numpy as np

from chainrule.train.words.arithmetic import (
    add_combination,
    add_multiples,
    add_row,
    clear,
    copy_row,
    dots,
    inlined,
    logistic,
)
from chainrule.train.words.blocks import targets
from chainrule.train.words.draw import draw_negatives


@inlined
def negative_block(  # type: ignore[no-untyped-def]
    x, dx, r0, r1, start, end, outputs, tables, state, rate, scratch, window, negatives, shared, group, cbow, width
):
    """Gradient steps of the rows r0 ... r1 - 1 of `x`, in `dx`, and of the output rows; returns (loss, pairs, state).

    Scratch rows of the output side: the block's centres, the negatives of each group, and one that stays zero.
    """
    kept, first, last = scratch.kept, scratch.first, scratch.last
    o, do, target = scratch.o, scratch.do, scratch.target
    place, label, weight, s = scratch.place, scratch.label, scratch.weight, scratch.s
    centres, groups = end - start, -(-(r1 - r0) // group)
    zero = (centres + groups * shared) * width
    for c in range(centres):
        copy_row(o, c * width, outputs, np.int64(kept[start + c]) * width, width)
    state = draw_negatives(tables.noise, tables.alias, state, scratch.negative, groups * shared)
    for k in range(groups * shared):
        copy_row(o, (centres + k) * width, outputs, scratch.negative[k] * width, width)
    clear(o, zero, width)
    clear(do, 0, zero + width)

    ratio = np.float32(negatives / shared)
    loss, pairs = 0.0, 0
    for r in range(r0, r1):
        n = targets(r, first, last, start, end, window, cbow, target)
        if n == 0:
            continue
        offset = (r - r0) // group * shared
        for k in range(shared):
            place[n + k], label[n + k], weight[n + k] = (centres + offset + k) * width, 0, ratio * np.float32(n)
        for t in range(n):
            place[t], label[t], weight[t] = (target[t] - start) * width, 1, 1
            word = np.int64(kept[target[t]])
            for k in range(shared):
                weight[n + k] -= ratio if scratch.negative[offset + k] == word else np.float32(0)
        count = n + shared
        while count % 4:
            place[count], label[count], weight[count] = zero, 0, 0
            count += 1
        row = (r - r0) * width
        dots(x, row, o, place, count, s, width)
        loss += logistic(s, label, weight, count, rate)
        add_combination(dx, row, o, place, count, s, width)
        add_multiples(do, place, count, s, x, row, width)
        pairs += n

    for c in range(centres):
        add_row(outputs, np.int64(kept[start + c]) * width, do, c * width, width)
    for k in range(groups * shared):
        add_row(outputs, scratch.negative[k] * width, do, (centres + k) * width, width)
    return loss, pairs, state
