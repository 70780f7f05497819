"""A job's kernel, compiled for one shape: draw, then block by block gather, differentiate, scatter.

numba compiles it without the interpreter's lock, so that one thread a core works on the same matrices without locks
(Recht et al. 2011, "Hogwild!"); one thread alone is bitwise reproducible. The machine code is kept in `__pycache__`
(numba's own cache), so that only the first run of a shape waits for the compiler.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from chainrule.train.words.blocks import block_end, gather, reach, scatter, spread_means, window_means
from chainrule.train.words.draw import select, stream
from chainrule.train.words.hierarchical import hierarchical_block
from chainrule.train.words.negative import negative_block
from chainrule.train.words.shape import Scratch, Shape, Tables, make_scratch
from chainrule.train.words.softmax import softmax_block


class Kernel(Protocol):
    """One job: updates `inputs` and `outputs` in place."""

    def __call__(
        self,
        inputs: NDArray[np.float32],
        outputs: NDArray[np.float32],
        tokens: NDArray[np.int32],
        tables: Tables,
        seed: int,
        epoch: int,
        job: int,
        rate: np.float32,
        scratch: Scratch,
    ) -> tuple[float, int, int]:
        """(sum of the losses before each block's update, pairs, words left by sub-sampling).

        inputs, outputs  flat: rows of `shape.width` floats
        tokens           word numbers, -1 behind each sentence
        """


def source() -> int:
    """A number of the source of this folder. As a constant of the kernel it makes numba's cache notice every change."""
    return zlib.crc32(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))


def compiled(shape: Shape, tables: Tables, words: int) -> Kernel:
    """The kernel of a shape, in machine code when this returns: it has had a job without words."""
    kernel, scratch = make_kernel(shape), make_scratch(shape, tables, words, 1)
    row = np.zeros(shape.width, np.float32)
    kernel(row, row.copy(), np.zeros(0, np.int32), tables, 0, 0, 0, np.float32(0), scratch)
    return kernel


def make_kernel(shape: Shape) -> Kernel:
    """The kernel of a shape; numba compiles it, or takes it from its cache, when it is called first."""
    version, width = source(), shape.width
    window, negatives, shared = shape.window, shape.negatives, shape.shared
    block_size, repeats, group, dynamic = shape.block, shape.repeats, shape.group, shape.dynamic
    cbow, hierarchical, softmax = (
        shape.model == "cbow",
        shape.objective == "hierarchical",
        shape.objective == "softmax",
    )

    @njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
    def train_job(inputs, outputs, tokens, tables, seed, epoch, job, rate, scratch):  # type: ignore[no-untyped-def]
        version  # noqa: B018  part of the cache's key
        first, last, kept = scratch.first, scratch.last, scratch.kept
        state = stream(seed, epoch, job)
        words, state = select(tokens, tables.keep, state, kept, first, last, window, dynamic)
        loss, pairs = 0.0, 0
        end = 0
        while end < words:
            start, end = end, block_end(kept, end, words, block_size, repeats)
            lo, hi = reach(first, last, start, end)
            gather(scratch.x, scratch.dx, inputs, kept, lo, hi, width)
            x, dx, r0, r1 = scratch.x, scratch.dx, lo, hi
            if cbow:
                x, dx, r0, r1 = scratch.h, scratch.dh, start, end
                window_means(x, dx, scratch.x, first, last, start, end, lo, width)
            if hierarchical:
                more, count = hierarchical_block(
                    x, dx, r0, r1, start, end, outputs, tables, rate, scratch, window, cbow, width
                )
            elif softmax:
                more, count = softmax_block(x, dx, r0, r1, start, end, outputs, rate, scratch, window, cbow, width)
            else:
                more, count, state = negative_block(
                    x, dx, r0, r1, start, end, outputs, tables, state, rate, scratch,
                    window, negatives, shared, group, cbow, width,
                )  # fmt: skip
            if cbow:
                spread_means(scratch.dx, dx, first, last, start, end, lo, width)
            scatter(inputs, scratch.dx, kept, lo, hi, width)
            loss += more
            pairs += count
        return loss, pairs, words

    kernel: Kernel = train_job
    return kernel
