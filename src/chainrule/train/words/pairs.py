"""All predictions of a text as examples for the common loop, drawn once by the kernel's own rules.

N predictions, C words of a window, S negatives
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chainrule.data.order import mix
from chainrule.data.word_corpus import WordCorpus
from chainrule.train.engine import Batch
from chainrule.train.words.draw import select, stream
from chainrule.train.words.shape import Shape, Tables
from chainrule.train.words.textbook import as_batch

_Numbers = NDArray[np.int64]
_32 = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Examples: the windows first_N ... last_N - 1 of `kept` without the target's own place, and the target's place."""

    shape: Shape
    tables: Tables
    kept: _Numbers
    first: _Numbers
    last: _Numbers
    target: _Numbers
    seed: int

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """Tensors as the losses of `models/word2vec.py` take them."""
        window, present = self._windows(indices)
        target = self.kept[self.target[indices]]
        negative = self._negatives(indices) if self.shape.objective == "negative" else None
        batch = as_batch(self.shape, self.tables, window, present, target, negative)
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def _windows(self, indices: _Numbers) -> tuple[_Numbers, NDArray[np.float32]]:
        """(window_BC, present_BC); the target's own place and places beyond the window hold a word that is not present."""
        span = self.first[indices, None] + np.arange(2 * self.shape.window + 1)
        if self.shape.model == "skip-gram":
            span = self.first[indices, None]
        present = (span < self.last[indices, None]) & (span != self.target[indices, None])
        return self.kept[np.minimum(span, len(self.kept) - 1)], present.astype(np.float32)

    def _negatives(self, indices: _Numbers) -> _Numbers:
        """negative_BS by Walker's alias method, a function of the seed and the example's number alone."""
        first: _Numbers = indices[:, None] * self.shape.negatives
        numbers = (first + np.arange(self.shape.negatives)).astype(np.uint64)
        words: NDArray[np.uint64] = mix(mix(np.array([self.seed], np.uint64)) ^ numbers)
        column = ((words >> _32) * np.uint64(len(self.tables.noise)) >> _32).astype(np.int64)
        own = (words & np.uint64(2**32 - 1)) <= self.tables.noise[column]
        return np.where(own, column, self.tables.alias[column])


def draw_pairs(
    shape: Shape, tables: Tables, corpus: WordCorpus, seed: int, validation_fraction: float
) -> tuple[Pairs, Pairs]:
    """(training, validation): sentences whose number's hash is below the fraction are for validation."""
    tokens = np.ascontiguousarray(corpus.tokens)
    kept, first, last = (np.zeros(len(tokens) + 1, np.int32) for _ in range(3))
    state = np.uint64(stream(seed, 0, 0))
    words, _ = select(tokens, tables.keep, state, kept, first, last, shape.window, shape.dynamic)
    columns = [array[:words].astype(np.int64) for array in (kept, first, last)]
    centre = np.flatnonzero(columns[2] - columns[1] > 1)
    first_N, last_N, target_N = columns[1][centre], columns[2][centre], centre
    sentence = np.cumsum(np.concatenate([[True], columns[1][1:] >= np.arange(1, words)]))[target_N]
    if shape.model == "skip-gram":
        count = last_N - first_N
        target_N = np.repeat(target_N, count)
        place = np.repeat(first_N, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        other = place != target_N
        sentence = np.repeat(sentence, count)[other]
        first_N, last_N, target_N = place[other], place[other] + 1, target_N[other]
    held = mix(sentence.astype(np.uint64)) < np.uint64(validation_fraction * 2**64)

    def side(chosen: NDArray[np.bool_]) -> Pairs:
        return Pairs(shape, tables, columns[0], first_N[chosen], last_N[chosen], target_N[chosen], seed)

    return side(~held), side(held)
