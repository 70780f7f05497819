"""Negative sampling over a block: true centres against words of the noise distribution, shared by a group of rows.

    loss = Σ_(row, centre) [ softplus(-x_row · o_centre) + (K / S) Σ_s [n_s != centre] softplus(x_row · o_(n_s)) ]

Mikolov et al. 2013 ("Distributed Representations of Words and Phrases", equation 4) draw K negatives for each pair. Here S
are drawn for a group of rows, each weighing K / S: the same expected loss and gradient, but the negatives' rows are read
from memory and written back once for the group, not once for each pair (Ji et al. 2016, "Parallelizing Word2Vec in
Shared and Distributed Memory"). A negative that is the centre itself is left out for that pair, as in word2vec.
"""

from __future__ import annotations

import numpy as np

from chainrule.train.words.arithmetic import inlined
from chainrule.train.words.blocks import targets
from chainrule.train.words.draw import draw_negatives
from chainrule.train.words.rows import gather_outputs, regress, scatter_outputs


@inlined
def negative_block(  # type: ignore[no-untyped-def]
    x, dx, r0, r1, start, end, outputs, tables, state, rate, scratch, window, negatives, shared, group, cbow, width
):
    """Gradient steps of the rows r0 ... r1 - 1 of `x`, in `dx`, and of the output rows; returns (loss, pairs, state).

    Output rows: the block's centres, then the negatives of each group.
    """
    kept, unit, target = scratch.kept, scratch.unit, scratch.target
    place, label, weight = scratch.place, scratch.label, scratch.weight
    centres, drawn = end - start, -(-(r1 - r0) // group) * shared
    for c in range(centres):
        unit[c] = kept[start + c]
    state = draw_negatives(tables.noise, tables.alias, state, unit[centres:], drawn)
    gather_outputs(scratch, outputs, centres + drawn, width)

    ratio = np.float32(negatives / shared)
    loss, pairs = 0.0, 0
    for r in range(r0, r1):
        n = targets(r, scratch.first, scratch.last, start, end, window, cbow, target)
        if n == 0:
            continue
        for t in range(n):
            target[t] -= start
            place[t], label[t], weight[t] = target[t] * width, 1, 1
        enter_negatives(scratch, n, centres + (r - r0) // group * shared, shared, ratio, width)
        loss += regress(x, dx, (r - r0) * width, scratch, n + shared, centres + drawn, rate, width)
        pairs += n
    scatter_outputs(scratch, outputs, centres + drawn, width)
    return loss, pairs, state


@inlined
def enter_negatives(scratch, n, first, shared, ratio, width):  # type: ignore[no-untyped-def]
    """Enter `shared` output rows behind a row's n targets; each weighs `ratio` for every target that it is not.

    Places are unsigned, so that none is tested for being negative and the loops are vectorised: a tenth of skip-gram's time.
    """
    unit, place, label, weight = scratch.unit, scratch.place, scratch.label, scratch.weight
    n, first, shared, width = np.uint64(n), np.uint64(first), np.uint64(shared), np.uint64(width)
    for k in range(shared):
        place[n + k], label[n + k], weight[n + k] = (first + k) * width, 0, ratio * np.float32(n)
    for t in range(n):
        word = unit[scratch.target[t]]
        for k in range(shared):
            weight[n + k] -= ratio if unit[first + k] == word else np.float32(0)
