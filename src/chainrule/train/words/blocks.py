"""From words to rows and back: a block of centre words, the rows that predict, and where their gradients go.

    skip-gram  the row of each context word predicts the centres in whose windows it stands
    CBOW       the mean of the rows in a centre's window predicts the centre

A block reads every row that it needs before it writes any. Its update is therefore exactly -rate times the gradient of
the block's loss, at any rate, which is what `proof.py` proves.
"""

from __future__ import annotations

import numpy as np

from chainrule.train.words.arithmetic import add_multiple, add_row, clear, copy_row, inlined


@inlined
def block_end(kept, start, words, most, repeats):  # type: ignore[no-untyped-def]
    """Where the block that begins at `start` ends: after `most` words, or before a word stands in it `repeats` + 1 times.

    The gradients of a block are summed at the same weights. A word that stands there often, as in a table of one text over
    and over, would take a step as long as all of its pairs' together, and overshoot: training diverges.
    """
    end = min(start + most, words)
    for c in range(start + 1, end):
        before = 0
        for a in range(start, c):
            before += 1 if kept[a] == kept[c] else 0
        if before >= repeats:
            return c
    return end


@inlined
def reach(first, last, start, end):  # type: ignore[no-untyped-def]
    """(lo, hi): all windows of the centres start ... end - 1 lie in lo ... hi - 1."""
    lo, hi = first[start], last[end - 1]
    for c in range(start, end):
        lo, hi = min(lo, first[c]), max(hi, last[c])
    return lo, hi


@inlined
def gather(x, dx, weights, kept, lo, hi, width):  # type: ignore[no-untyped-def]
    """Copy the rows of the words lo ... hi - 1 into `x`; their gradients start at zero."""
    for a in range(lo, hi):
        copy_row(x, (a - lo) * width, weights, np.int64(kept[a]) * width, width)
    clear(dx, 0, (hi - lo) * width)


@inlined
def scatter(weights, dx, kept, lo, hi, width):  # type: ignore[no-untyped-def]
    """Add the steps of the words lo ... hi - 1 to their rows; a word that stands there twice gets both."""
    for a in range(lo, hi):
        add_row(weights, np.int64(kept[a]) * width, dx, (a - lo) * width, width)


@inlined
def window_means(h, dh, x, first, last, start, end, lo, width):  # type: ignore[no-untyped-def]
    """h[c] = mean of the rows in the window of c, without c's own; zero if there are none."""
    clear(h, 0, (end - start) * width)
    clear(dh, 0, (end - start) * width)
    for c in range(start, end):
        share = np.float32(1) / np.float32(last[c] - first[c] - 1)
        for a in range(first[c], last[c]):
            if a != c:
                add_multiple(h, (c - start) * width, share, x, (a - lo) * width, width)


@inlined
def spread_means(dx, dh, first, last, start, end, lo, width):  # type: ignore[no-untyped-def]
    """The chain rule through the mean: each row of the window gets 1 / count of the step of its mean."""
    for c in range(start, end):
        share = np.float32(1) / np.float32(last[c] - first[c] - 1)
        for a in range(first[c], last[c]):
            if a != c:
                add_multiple(dx, (a - lo) * width, share, dh, (c - start) * width, width)


@inlined
def targets(row, first, last, start, end, window, cbow, target_N):  # type: ignore[no-untyped-def]
    """Write the centres of the block that a row predicts; returns how many. A CBOW row is its centre's own place."""
    n = 0
    if cbow:
        if last[row] - first[row] > 1:
            target_N[0] = row
            n = 1
        return n
    for c in range(max(start, row - window), min(end, row + window + 1)):
        if c != row and first[c] <= row < last[c]:
            target_N[n] = c
            n += 1
    return n
