"""A text as numbers of words, on disk: read by memory map, so that it may be larger than memory.

The file is a row of little-endian int32: the number of each word of the vocabulary, END_OF_SENTENCE behind each sentence.
Rare words are left out before windows are laid, as in word2vec. The row is cut into jobs, one thread's work for some
milliseconds: about `JOB_WORDS` words of whole sentences; a sentence of more than twice that is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chainrule.data.vocabulary import Vocabulary
from chainrule.data.words import BLOCK_BYTES, END, Rule, sentences_in
from chainrule.errors import DataError

JOB_WORDS = 10_000
END_OF_SENTENCE = -1
_RARE = -2
_Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class WordCorpus:
    """Numbers of words, and the jobs: job j is tokens[starts[j] : starts[j + 1]], made of words[j] words of the text."""

    tokens: _Numbers
    starts: NDArray[np.int64]
    words: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.words)

    def job(self, number: int) -> _Numbers:
        """The tokens of one job."""
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def longest(self) -> int:
        """Tokens of the longest job."""
        return int(np.diff(self.starts).max())


def write_corpus(
    path: Path, texts: Sequence[Path], rule: Rule, vocabulary: Vocabulary, size: int = BLOCK_BYTES
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write the row of numbers, block by block; returns (starts, words) of its jobs."""
    starts, words = [0], []
    with path.open("wb") as file:
        for tokens, count in _jobs(_numbers(texts, rule, vocabulary, size)):
            file.write(tokens.astype("<i4").tobytes())
            starts.append(starts[-1] + len(tokens))
            words.append(count)
    return np.array(starts, np.int64), np.array(words, np.int64)


def open_corpus(path: Path, starts: NDArray[np.int64], words: NDArray[np.int64]) -> WordCorpus:
    """Map the file. Raises DataError if it is not as long as its jobs say."""
    expected, found = 4 * int(starts[-1]), path.stat().st_size
    if found != expected:
        raise DataError(f"{path} holds {found:,} bytes, its jobs {expected:,}: it was cut or changed")
    return WordCorpus(np.asarray(np.memmap(path, np.dtype("<i4"), mode="c")), starts, words)


def in_memory(texts: Sequence[Path], rule: Rule, vocabulary: Vocabulary) -> WordCorpus:
    """The same corpus as an array."""
    jobs = list(_jobs(_numbers(texts, rule, vocabulary, BLOCK_BYTES)))
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in jobs)], dtype=np.int64)
    return WordCorpus(np.concatenate([tokens for tokens, _ in jobs]), starts, np.array([n for _, n in jobs], np.int64))


def _numbers(texts: Sequence[Path], rule: Rule, vocabulary: Vocabulary, size: int) -> Iterator[_Numbers]:
    number = {**vocabulary.number, END: END_OF_SENTENCE}
    for block in sentences_in(texts, rule, size):
        yield np.fromiter(map(number.get, block, repeat(_RARE)), np.int32, len(block))


def _jobs(parts: Iterator[_Numbers]) -> Iterator[tuple[_Numbers, int]]:
    """(tokens without rare words, words of the text) of each job."""
    row = np.empty(0, np.int32)
    for part in parts:
        row, done = np.concatenate([row, part]), 0
        for cut in _cuts(row):
            yield _without_rare(row[done:cut]), _words(row[done:cut])
            done = cut
        row = row[done:]
    if _words(row):
        yield _without_rare(row), _words(row)


def _cuts(row: _Numbers) -> Iterator[int]:
    """Where each whole job ends: behind the first sentence that makes it long enough, or within one that is too long."""
    counted = np.cumsum(row != END_OF_SENTENCE)
    ends = np.flatnonzero(row == END_OF_SENTENCE)
    counted_at_ends, before = counted[ends], 0
    while True:
        latest = int(np.searchsorted(counted, before + 2 * JOB_WORDS))  # the place of the last word that a job may hold
        nearest = int(np.searchsorted(counted_at_ends, before + JOB_WORDS))
        if nearest < len(ends) and ends[nearest] <= latest:
            cut = int(ends[nearest]) + 1
        elif latest < len(row):
            cut = latest + 1
        else:
            return
        yield cut
        before = int(counted[cut - 1])


def _without_rare(row: _Numbers) -> _Numbers:
    return np.asarray(row[row != _RARE])


def _words(row: _Numbers) -> int:
    return int(np.count_nonzero(row != END_OF_SENTENCE))
