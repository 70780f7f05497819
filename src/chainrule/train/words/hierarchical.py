"""Hierarchical softmax over a block: each target is reached by logistic decisions along its path in the Huffman tree.

loss = Σ_(row, target) Σ_j softplus((2 code_j - 1) x_row · o_(path_j))       = -Σ log p(target | row)
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


@inlined
def hierarchical_block(  # type: ignore[no-untyped-def]
    x, dx, r0, r1, start, end, outputs, tables, rate, scratch, window, cbow, width
):
    """Gradient steps of the rows r0 ... r1 - 1 of `x`, in `dx`, and of the inner nodes; returns (loss, pairs).

    Scratch rows of the output side: the path of each centre of the block, and one that stays zero.
    """
    kept, o, do, target = scratch.kept, scratch.o, scratch.do, scratch.target
    place, label, weight, s = scratch.place, scratch.label, scratch.weight, scratch.s
    deepest = tables.path.shape[1]
    zero = (end - start) * deepest * width
    for c in range(start, end):
        word = kept[c]
        for j in range(tables.length[word]):
            own = ((c - start) * deepest + j) * width
            copy_row(o, own, outputs, np.int64(tables.path[word, j]) * width, width)
    clear(o, zero, width)
    clear(do, 0, zero + width)

    loss, pairs = 0.0, 0
    for r in range(r0, r1):
        n = targets(r, scratch.first, scratch.last, start, end, window, cbow, target)
        pairs += n
        for t in range(n):
            word = kept[target[t]]
            count = np.int64(tables.length[word])
            for j in range(count):
                place[j] = ((target[t] - start) * deepest + j) * width
                label[j], weight[j] = 1 - tables.code[word, j], 1
            while count % 4:
                place[count], label[count], weight[count] = zero, 0, 0
                count += 1
            row = (r - r0) * width
            dots(x, row, o, place, count, s, width)
            loss += logistic(s, label, weight, count, rate)
            add_combination(dx, row, o, place, count, s, width)
            add_multiples(do, place, count, s, x, row, width)

    for c in range(start, end):
        word = kept[c]
        for j in range(tables.length[word]):
            own = ((c - start) * deepest + j) * width
            add_row(outputs, np.int64(tables.path[word, j]) * width, do, own, width)
    return loss, pairs
