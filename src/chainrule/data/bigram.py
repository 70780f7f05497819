"""The baseline that a language model must beat: the next token predicted from the current one alone, by counting.

    p(b | a) = (count(a, b) + k p(b)) / (count(a) + k)        p(b) = (count(b) + 1) / (n + V)

Counts interpolated with the unigram distribution (a Dirichlet prior of strength k: MacKay and Peto 1995, "A
hierarchical Dirichlet language model"); k is chosen on a held-out tenth of the training tokens, never on the
validation text. At most the first 20 million training tokens are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule.data.token_file import Ids, TokenRow
from chainrule.data.windows import Windows

HELD_OUT = 0.1
FITTED = 20_000_000
_CHUNK = 1_000_000
_STRENGTHS = np.geomspace(1e-1, 1e5, 61)


@dataclass(frozen=True)
class Bigram:
    """Counts of pairs as sorted codes a V + b, and the strength k of the unigram prior."""

    vocabulary: int
    pairs: NDArray[np.int64]
    pair_counts: NDArray[np.int64]
    counts: NDArray[np.int64]
    strength: float

    def probability(self, current: Ids, following: Ids) -> NDArray[np.float64]:
        """p(following | current), elementwise."""
        together, before, unigram = self._evidence(current, following)
        return (together + self.strength * unigram) / (before + self.strength)

    def loss(self, current: Ids, following: Ids) -> float:
        """Mean of -log p(following | current), in nats per token."""
        return float(-np.log(self.probability(current, following)).mean())

    def _evidence(
        self, current: Ids, following: Ids
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        codes = _codes(current, following, self.vocabulary)
        at = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        together = np.where(self.pairs[at] == codes, self.pair_counts[at], 0)
        unigram = (np.bincount(self.pairs % self.vocabulary, self.pair_counts, self.vocabulary) + 1.0)[following]
        return together, self.counts[current], unigram / (self.pair_counts.sum() + self.vocabulary)


def _codes(current: Ids, following: Ids, vocabulary: int) -> NDArray[np.int64]:
    return current.astype(np.int64) * vocabulary + following


def count(tokens: TokenRow, vocabulary: int, strength: float) -> Bigram:
    """Count the pairs of neighbouring tokens, a million at a time."""
    pairs = pair_counts = np.zeros(0, np.int64)
    counts = np.zeros(vocabulary, np.int64)
    for start in range(0, len(tokens) - 1, _CHUNK):
        row = tokens[start : start + _CHUNK + 1]
        more, more_counts = np.unique(_codes(row[:-1], row[1:], vocabulary), return_counts=True)
        pairs, place = np.unique(np.concatenate([pairs, more]), return_inverse=True)
        pair_counts = np.bincount(place, np.concatenate([pair_counts, more_counts])).astype(np.int64)
        counts += np.bincount(row[:-1], minlength=vocabulary)
    return Bigram(vocabulary, pairs, pair_counts, counts, strength)


def fit_bigram(tokens: TokenRow, vocabulary: int) -> Bigram:
    """Fit the counts on the training tokens; choose k where the last tenth of them is most probable given the rest."""
    tokens = tokens[:FITTED]
    cut = max(2, round(len(tokens) * (1 - HELD_OUT)))
    rest, held = tokens[:cut], tokens[cut - 1 :]
    if len(held) < 2:
        return count(tokens, vocabulary, strength=1.0)
    together, before, unigram = count(rest, vocabulary, 1.0)._evidence(held[:-1], held[1:])
    losses = [-np.log((together + k * unigram) / (before + k)).mean() for k in _STRENGTHS]
    return count(tokens, vocabulary, strength=float(_STRENGTHS[int(np.argmin(losses))]))


def bigram_loss(bigram: Bigram, windows: Windows) -> float:
    """The baseline's loss on exactly the targets that the model is measured on, in nats per token."""
    end, total = len(windows) * windows.context, 0.0
    for start in range(0, end, _CHUNK):
        row = windows.tokens[start : min(start + _CHUNK, end) + 1]
        total += bigram.loss(row[:-1], row[1:]) * (len(row) - 1)
    return total / end
