"""The baseline that a language model must beat: the next token predicted from the current one alone, by counting.

    p(b | a) = (count(a, b) + k p(b)) / (count(a) + k)        p(b) = (count(b) + 1) / (n + V)

Counts interpolated with the unigram distribution (a Dirichlet prior of strength k: MacKay and Peto 1995, "A
hierarchical Dirichlet language model"); k is chosen on a held-out tenth of the training tokens, never on the
validation text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule.data.tokenizer import Tokens
from chainrule.data.windows import Windows

HELD_OUT = 0.1
_STRENGTHS = np.geomspace(1e-1, 1e5, 61)


@dataclass(frozen=True)
class Bigram:
    """Counts of pairs as sorted codes a V + b, and the strength k of the unigram prior."""

    vocabulary: int
    pairs: NDArray[np.int64]
    pair_counts: NDArray[np.int64]
    counts: NDArray[np.int64]
    strength: float

    def probability(self, current: Tokens, following: Tokens) -> NDArray[np.float64]:
        """p(following | current), elementwise."""
        together, before, unigram = self._evidence(current, following)
        return (together + self.strength * unigram) / (before + self.strength)

    def loss(self, current: Tokens, following: Tokens) -> float:
        """Mean of -log p(following | current), in nats per token."""
        return float(-np.log(self.probability(current, following)).mean())

    def _evidence(
        self, current: Tokens, following: Tokens
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        codes = _codes(current, following, self.vocabulary)
        at = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        together = np.where(self.pairs[at] == codes, self.pair_counts[at], 0)
        unigram = (np.bincount(self.pairs % self.vocabulary, self.pair_counts, self.vocabulary) + 1.0)[following]
        return together, self.counts[current], unigram / (self.pair_counts.sum() + self.vocabulary)


def _codes(current: Tokens, following: Tokens, vocabulary: int) -> NDArray[np.int64]:
    return current.astype(np.int64) * vocabulary + following


def count(tokens: Tokens, vocabulary: int, strength: float) -> Bigram:
    """Count the pairs of neighbouring tokens."""
    pairs, pair_counts = np.unique(_codes(tokens[:-1], tokens[1:], vocabulary), return_counts=True)
    return Bigram(vocabulary, pairs, pair_counts, np.bincount(tokens[:-1], minlength=vocabulary), strength)


def fit_bigram(tokens: Tokens, vocabulary: int) -> Bigram:
    """Fit the counts on the training tokens; choose k where the last tenth of them is most probable given the rest."""
    cut = max(2, round(len(tokens) * (1 - HELD_OUT)))
    rest, held = tokens[:cut], tokens[cut - 1 :]
    if len(held) < 2:
        return count(tokens, vocabulary, strength=1.0)
    together, before, unigram = count(rest, vocabulary, 1.0)._evidence(held[:-1], held[1:])
    losses = [-np.log((together + k * unigram) / (before + k)).mean() for k in _STRENGTHS]
    return count(tokens, vocabulary, strength=float(_STRENGTHS[int(np.argmin(losses))]))


def bigram_loss(bigram: Bigram, windows: Windows) -> float:
    """The baseline's loss on exactly the targets that the model is measured on, in nats per token."""
    end = len(windows) * windows.context
    return bigram.loss(windows.tokens[:end], windows.tokens[1 : end + 1])
