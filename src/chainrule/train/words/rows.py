"""The output rows of a block: gathered, set against rows of `x` in logistic regressions, their steps scattered.

    loss = Σ_entries weight [ softplus(s) - label s ]        s = x_row · o_entry

Which output rows a block needs, `scratch.unit`, and which of them stand in the list of a row of `x`, with what label and
weight, is the objective's: `negative.py`, `hierarchical.py`.
"""

from __future__ import annotations

from chainrule.train.words.arithmetic import (
    LANES,
    add_combination,
    add_multiples,
    add_row,
    clear,
    copy_row,
    dots,
    inlined,
    logistic,
)


@inlined
def gather_outputs(scratch, outputs, units, width):  # type: ignore[no-untyped-def]
    """Copy the rows unit[0 ... units - 1] and, behind them, one that stays zero; their gradients start at zero."""
    for k in range(units):
        copy_row(scratch.o, k * width, outputs, scratch.unit[k] * width, width)
    clear(scratch.o, units * width, width)
    clear(scratch.do, 0, units * width)


@inlined
def scatter_outputs(scratch, outputs, units, width):  # type: ignore[no-untyped-def]
    """Add the steps to the rows; one that stands there twice gets both."""
    for k in range(units):
        add_row(outputs, scratch.unit[k] * width, scratch.do, k * width, width)


@inlined
def regress(x, dx, row, scratch, count, units, rate, width):  # type: ignore[no-untyped-def]
    """Gradient steps of one row of `x`, in `dx`, and of the `count` output rows of its list; returns the loss.

    The list is filled up with the zero row, at weight 0, to whole registers.
    """
    place, s = scratch.place, scratch.s
    fours, lanes = -(-count // 4) * 4, -(-count // LANES) * LANES
    for j in range(count, lanes):
        place[j], scratch.label[j], scratch.weight[j], s[j] = units * width, 0, 0, 0
    dots(x, row, scratch.o, place, fours, s, width)
    loss = logistic(s, scratch.label, scratch.weight, lanes, rate)
    add_combination(dx, row, scratch.o, place, fours, s, width)
    add_multiples(scratch.do, place, count, s, x, row, width)
    return loss
