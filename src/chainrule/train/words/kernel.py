"""A job's kernel, compiled for one shape of the model: draw, then block by block gather, differentiate, scatter.

numba compiles it without the interpreter's lock, so that one thread a core works on the same matrices without locks
(Recht et al. 2011, "Hogwild!"); one thread alone is bitwise reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from chainrule.train.words.arithmetic import padded
from chainrule.train.words.blocks import gather, reach, scatter, spread_means, window_means
from chainrule.train.words.draw import select, stream
from chainrule.train.words.negative import negative_block


@dataclass(frozen=True)
class Shape:
    """What is constant in the machine code."""

    dimensions: int = 100
    window: int = 5
    negatives: int = 5
    shared: int = 16
    block: int = 64
    group: int = 128
    cbow: bool = False
    dynamic: bool = True


class Tables(NamedTuple):
    """Read by every job: keep_V, noise_V, alias_V as `draw.py` takes them."""

    keep: NDArray[np.uint32]
    noise: NDArray[np.uint32]
    alias: NDArray[np.int32]


class Scratch(NamedTuple):
    """A thread's own memory; small enough to stay in its cache."""

    kept: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    x: NDArray[np.float32]
    dx: NDArray[np.float32]
    h: NDArray[np.float32]
    dh: NDArray[np.float32]
    o: NDArray[np.float32]
    do: NDArray[np.float32]
    negative: NDArray[np.int64]
    target: NDArray[np.int64]
    place: NDArray[np.int64]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    s: NDArray[np.float32]


def make_scratch(shape: Shape, longest: int) -> Scratch:
    """Memory for jobs of up to `longest` words."""
    width = padded(shape.dimensions)
    rows = shape.block + 2 * shape.window
    groups = -(-rows // shape.group)
    outputs = shape.block + groups * shape.shared + 1
    listed = 2 * shape.window + shape.shared + 4
    floats = lambda count: np.zeros(count, np.float32)
    return Scratch(
        kept=np.zeros(longest + 1, np.int32),
        first=np.zeros(longest + 1, np.int32),
        last=np.zeros(longest + 1, np.int32),
        x=floats(rows * width),
        dx=floats(rows * width),
        h=floats(shape.block * width),
        dh=floats(shape.block * width),
        o=floats(outputs * width),
        do=floats(outputs * width),
        negative=np.zeros(groups * shape.shared, np.int64),
        target=np.zeros(2 * shape.window + 1, np.int64),
        place=np.zeros(listed, np.int64),
        label=floats(listed),
        weight=floats(listed),
        s=floats(listed),
    )


def make_kernel(shape: Shape):
    """Compile."""
    width = padded(shape.dimensions)
    window, negatives, shared = shape.window, shape.negatives, shape.shared
    block, group, cbow, dynamic = shape.block, shape.group, shape.cbow, shape.dynamic

    @njit(nogil=True, fastmath=True, error_model="numpy")
    def train_job(inputs, outputs, tokens, tables, seed, epoch, job, rate, scratch):
        state = stream(seed, epoch, job)
        first, last, kept = scratch.first, scratch.last, scratch.kept
        n, state = select(tokens, tables.keep, state, kept, first, last, window, dynamic)
        loss, pairs = 0.0, 0
        for start in range(0, n, block):
            end = min(start + block, n)
            lo, hi = reach(first, last, start, end)
            gather(scratch.x, scratch.dx, inputs, kept, lo, hi, width)
            if cbow:
                window_means(scratch.h, scratch.dh, scratch.x, first, last, start, end, lo, width)
                one, some, state = negative_block(
                    scratch.h, scratch.dh, start, end, start, end, outputs, tables, state, rate, scratch,
                    window, negatives, shared, group, cbow, width,
                )
                spread_means(scratch.dx, scratch.dh, first, last, start, end, lo, width)
            else:
                one, some, state = negative_block(
                    scratch.x, scratch.dx, lo, hi, start, end, outputs, tables, state, rate, scratch,
                    window, negatives, shared, group, cbow, width,
                )
            scatter(inputs, scratch.dx, kept, lo, hi, width)
            loss += one
            pairs += some
        return loss, pairs, n

    return train_job
