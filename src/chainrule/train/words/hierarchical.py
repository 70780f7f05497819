"""Hierarchical softmax over a block: each target is reached by logistic decisions along its path in the Huffman tree.

loss = Σ_(row, target) Σ_j softplus((2 code_j - 1) x_row · o_(path_j))       = -Σ log p(target | row)
"""

from __future__ import annotations

import numpy as np

from chainrule.train.words.arithmetic import inlined
from chainrule.train.words.blocks import targets
from chainrule.train.words.rows import gather_outputs, regress, scatter_outputs


@inlined
def hierarchical_block(  # type: ignore[no-untyped-def]
    x, dx, r0, r1, start, end, outputs, tables, rate, scratch, window, cbow, width
):
    """Gradient steps of the rows r0 ... r1 - 1 of `x`, in `dx`, and of the inner nodes; returns (loss, pairs).

    Output rows: the path of each centre of the block; that of centre c begins at begin[c - start].
    """
    kept, unit, begin, target = scratch.kept, scratch.unit, scratch.begin, scratch.target
    units = 0
    for c in range(start, end):
        begin[c - start] = units
        for j in range(tables.length[kept[c]]):
            unit[units] = tables.path[kept[c], j]
            units += 1
    gather_outputs(scratch, outputs, units, width)

    loss, pairs = 0.0, 0
    for r in range(r0, r1):
        n = targets(r, scratch.first, scratch.last, start, end, window, cbow, target)
        pairs += n
        for t in range(n):
            word, own = kept[target[t]], begin[target[t] - start]
            for j in range(tables.length[word]):
                scratch.place[j] = (own + j) * width
                scratch.label[j], scratch.weight[j] = 1 - tables.code[word, j], 1
            loss += regress(x, dx, (r - r0) * width, scratch, np.int64(tables.length[word]), units, rate, width)
    scatter_outputs(scratch, outputs, units, width)
    return loss, pairs
