"""The words of a text by frequency, and the three distributions that Word2Vec takes from their counts.

    keep(w)  = min(1, √(t / f) + t / f)      sub-sampling: f = share of w in the text, t = `sample`
    noise(w) = count(w)^0.75 / Σ count^0.75   negative sampling
    code(w)                                   hierarchical softmax: `huffman.py`

Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", sections 2.2 and 2.3;
keep(w) is what the authors' program computes, not the paper's 1 - √(t / f).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError

NOISE_POWER = 0.75


@dataclass(frozen=True)
class Vocabulary:
    """Words from the most to the least frequent; words of one count in the order of their letters.

    counts     of each word in the text
    raw_words  of the text, those included that are too rare for the vocabulary
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]
    raw_words: int

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def number(self) -> Mapping[str, int]:
        """The place of each word."""
        return MappingProxyType({word: place for place, word in enumerate(self.words)})


def make_vocabulary(counts: Mapping[str, int], min_count: int, max_words: int = 0) -> Vocabulary:
    """The words that occur at least `min_count` times, at most `max_words` of them (0 = all).

    Raises DataError if there are fewer than two.
    """
    kept = [word for word, count in counts.items() if count >= min_count]
    kept.sort(key=lambda word: (-counts[word], word))
    kept = kept[:max_words] if max_words else kept
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(counts):,} different words occur {min_count} times or more; two are needed: "
            "take more text or a smaller words.min_count"
        )
    return Vocabulary(tuple(kept), np.array([counts[word] for word in kept], np.int64), sum(counts.values()))


def keep_probability(counts: NDArray[np.int64], sample: float) -> NDArray[np.float64]:
    """How probably an occurrence of each word is kept; sample = 0 keeps all."""
    if sample == 0:
        return np.ones(len(counts))
    share = sample * counts.sum() / counts
    return np.asarray(np.minimum(1.0, np.sqrt(share) + share))


def noise_distribution(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability of each word as a negative."""
    power = counts.astype(np.float64) ** NOISE_POWER
    return np.asarray(power / power.sum())


def alias_table(probability: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """(own, alias): draw a column v of V equally likely ones, take v with probability own[v], else alias[v].

    Exactly the distribution given, in two memory accesses a draw (Walker 1974; Vose 1991).
    """
    count = len(probability)
    own, alias = np.ones(count), np.arange(count, dtype=np.int32)
    height = (probability * count).tolist()  # the average column is 1 high
    low = [v for v in range(count) if height[v] < 1]
    high = [v for v in range(count) if height[v] >= 1]
    while low and high:
        poor, rich = low.pop(), high[-1]
        own[poor], alias[poor] = height[poor], rich
        height[rich] -= 1 - height[poor]
        if height[rich] < 1:
            low.append(high.pop())
    return own, alias  # what is left is 1 within rounding


def in_32_bits(probability: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Probabilities in units of 2^-32, to be compared with 32 random bits: drawn if bits <= value; 1 is always drawn."""
    return np.minimum(np.rint(probability * 2**32), 2**32 - 1).astype(np.uint32)
