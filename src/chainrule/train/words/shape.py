"""What a kernel is compiled for, what it reads, and the memory that each thread works in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.data.huffman import huffman
from chainrule.data.vocabulary import Vocabulary, alias_table, in_32_bits, keep_probability, noise_distribution
from chainrule.train.words.arithmetic import LANES, padded, zeros

Model = Literal["skip-gram", "cbow"]
Objective = Literal["negative", "hierarchical", "softmax"]


@dataclass(frozen=True)
class Shape:
    """What is constant in the machine code.

    dimensions  of a vector, D
    window      words to each side of the centre, at most
    negatives   for each pair of words, K
    shared      negatives that are drawn for a group of rows, S; each weighs K / S
    block       centre words whose gradients are summed before any weight is written
    repeats     occurrences of one word in a block, at most
    group       rows that share their negatives
    dynamic     windows of 1 ... `window` words at random; otherwise always `window`
    """

    model: Model
    objective: Objective
    dimensions: int
    window: int
    negatives: int
    shared: int
    block: int
    repeats: int
    group: int
    dynamic: bool

    @property
    def width(self) -> int:
        """Floats of a vector in memory."""
        return padded(self.dimensions)

    @property
    def rows(self) -> int:
        """Input rows of a block, at most: its centres and the words of their windows."""
        return self.block + 2 * self.window

    @property
    def groups(self) -> int:
        """Groups of a block, at most."""
        return -(-(self.block if self.model == "cbow" else self.rows) // self.group)


class Tables(NamedTuple):
    """Read by every job; those that the objective does not need are of length 1.

    keep                 probability of keeping a word, in units of 2^-32
    noise, alias         Walker's table of the noise distribution
    path, code, length   the Huffman tree
    """

    keep: NDArray[np.uint32]
    noise: NDArray[np.uint32]
    alias: NDArray[np.int32]
    path: NDArray[np.int32]
    code: NDArray[np.int8]
    length: NDArray[np.int32]


class Scratch(NamedTuple):
    """A thread's own memory.

    kept, first, last         the words of a job that sub-sampling leaves, with their windows
    x, dx                     input rows of a block, and their steps
    h, dh                     CBOW's means, and their steps
    unit                      output rows of a block: words or inner nodes
    begin                     of each centre's path in `unit`
    o, do                     these rows, behind them one of zeros, and their steps
    target                    centres that one row predicts
    place, label, weight, s   the list of one row: where an output row begins in `o`; its score, later the step
    """

    kept: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    x: NDArray[np.float32]
    dx: NDArray[np.float32]
    h: NDArray[np.float32]
    dh: NDArray[np.float32]
    o: NDArray[np.float32]
    do: NDArray[np.float32]
    unit: NDArray[np.int64]
    begin: NDArray[np.int64]
    target: NDArray[np.int64]
    place: NDArray[np.int64]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    s: NDArray[np.float32]


def make_tables(shape: Shape, vocabulary: Vocabulary, sample: float) -> Tables:
    """The tables of a vocabulary."""
    counts, one = vocabulary.counts, np.zeros(1, np.int32)
    noise, alias = np.zeros(1, np.uint32), one
    path, code, length = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int8), one
    if shape.objective == "negative":
        own, alias = alias_table(noise_distribution(counts))
        noise = in_32_bits(own)
    if shape.objective == "hierarchical":
        tree = huffman(counts)
        path, code, length = tree.path, tree.code, tree.length
    return Tables(in_32_bits(keep_probability(counts, sample)), noise, alias, path, code, length)


def make_scratch(shape: Shape, tables: Tables, words: int, longest: int) -> Scratch:
    """Memory for jobs of up to `longest` tokens over a vocabulary of `words`."""
    outputs, listed = {
        "negative": (shape.block + shape.groups * shape.shared, 2 * shape.window + shape.shared),
        "hierarchical": (shape.block * tables.path.shape[1], tables.path.shape[1]),
        "softmax": (words, words),
    }[shape.objective]

    return Scratch(
        kept=np.zeros(longest, np.int32),
        first=np.zeros(longest, np.int32),
        last=np.zeros(longest, np.int32),
        x=zeros(shape.rows * shape.width),
        dx=zeros(shape.rows * shape.width),
        h=zeros(shape.block * shape.width),
        dh=zeros(shape.block * shape.width),
        o=zeros((outputs + 1) * shape.width),
        do=zeros(outputs * shape.width),
        unit=np.zeros(outputs, np.int64),
        begin=np.zeros(shape.block, np.int64),
        target=np.zeros(2 * shape.window + 1, np.int64),
        place=np.zeros(listed + LANES, np.int64),
        label=zeros(listed + LANES),
        weight=zeros(listed + LANES),
        s=zeros(listed + LANES),
    )
