"""What a kernel does with a job, written out: the same draws as batches for the plain formulas of `models/word2vec.py`.

One batch a block, one example a pair (skip-gram) or a centre (CBOW); nothing is shared, merged or weighted by counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from chainrule.models.word2vec import full_softmax_loss, hierarchical_loss, negative_sampling_loss
from chainrule.train.engine import Batch, Loss
from chainrule.train.words.blocks import block_end
from chainrule.train.words.draw import draw_negatives, select, stream
from chainrule.train.words.shape import Objective, Scratch, Shape, Tables

LOSSES: MappingProxyType[Objective, Loss] = MappingProxyType(
    {"negative": negative_sampling_loss, "hierarchical": hierarchical_loss, "softmax": full_softmax_loss}
)
_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """One term of the loss: the words of the window, the word that they predict, and its negatives."""

    window: tuple[int, ...]
    target: int
    negatives: tuple[int, ...]


def examples(
    shape: Shape, tables: Tables, tokens: NDArray[np.int32], seed: int, epoch: int, job: int, scratch: Scratch
) -> Iterator[list[Example]]:
    """The terms of each block of a job."""
    first, last, kept = scratch.first, scratch.last, scratch.kept
    state = np.uint64(stream(seed, epoch, job))
    words, state = select(tokens, tables.keep, state, kept, first, last, shape.window, shape.dynamic)
    end = 0
    while end < words:
        start, end = end, block_end(kept, end, words, shape.block, shape.repeats)
        lo, hi = int(first[start:end].min()), int(last[start:end].max())
        begin, stop = (start, end) if shape.model == "cbow" else (lo, hi)
        negatives = np.zeros(0, np.int64)
        if shape.objective == "negative":
            negatives = np.zeros(-(-(stop - begin) // shape.group) * shape.shared, np.int64)
            state = draw_negatives(tables.noise, tables.alias, np.uint64(state), negatives, len(negatives))
        of_group = negatives.reshape(-1, shape.shared) if len(negatives) else np.zeros((stop - begin, 0), np.int64)

        def near(row: int, begin: int = begin, of_group: _Rows = of_group) -> tuple[int, ...]:
            return tuple(of_group[(row - begin) // shape.group if of_group.size else 0].tolist())

        yield list(_terms(shape.model == "cbow", kept, first, last, range(start, end), near))


def _terms(
    cbow: bool,
    kept: NDArray[np.int32],
    first: NDArray[np.int32],
    last: NDArray[np.int32],
    centres: range,
    negatives_of: Callable[[int], tuple[int, ...]],
) -> Iterator[Example]:
    for centre in centres:
        around = [place for place in range(first[centre], last[centre]) if place != centre]
        if cbow and around:
            yield Example(tuple(int(kept[place]) for place in around), int(kept[centre]), negatives_of(centre))
        elif not cbow:
            yield from (Example((int(kept[place]),), int(kept[centre]), negatives_of(place)) for place in around)


def batch_of(shape: Shape, tables: Tables, terms: list[Example]) -> Batch:
    """Examples as tensors, in float64."""
    window, present = _table([term.window for term in terms])
    target = np.array([term.target for term in terms], np.int64)
    negative = np.array([term.negatives for term in terms], np.int64) if shape.objective == "negative" else None
    return as_batch(shape, tables, window, present, target, negative)


def as_batch(
    shape: Shape,
    tables: Tables,
    window_BC: _Rows,
    present_BC: NDArray[np.floating],
    target_B: _Rows,
    negative_BS: _Rows | None,
) -> Batch:
    """Tensors as the losses of `models/word2vec.py` take them, of the precision of `present_BC`."""
    real = present_BC.dtype
    arrays: dict[str, NDArray[np.generic]] = {"window": window_BC, "present": present_BC}
    if shape.objective == "hierarchical":
        on_path = np.arange(tables.path.shape[1]) < tables.length[target_B][:, None]
        path, code = tables.path[target_B].astype(np.int64), tables.code[target_B].astype(real)
        arrays |= {"path": path, "code": code, "on_path": on_path.astype(real)}
    else:
        arrays["target"] = target_B
    if negative_BS is not None:
        weight = np.where(negative_BS == target_B[:, None], 0.0, shape.negatives / shape.shared)
        arrays |= {"negative": negative_BS, "weight": weight.astype(real)}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _table(rows: list[tuple[int, ...]]) -> tuple[_Rows, NDArray[np.float64]]:
    """Rows of unequal length as one array, filled up with each row's first entry, and where an entry is real."""
    longest = max(map(len, rows))
    filled = np.array([row + row[:1] * (longest - len(row)) for row in rows], np.int64)
    present = np.array([[float(place < len(row)) for place in range(longest)] for row in rows])
    return filled, present
