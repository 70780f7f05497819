"""The word that a misspelt one is meant to be: fewest edits, then the most frequent."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

CANDIDATES = 20


def nearest_spelling(word: str, words: Sequence[str]) -> str | None:
    """The word with the fewest edits; of several the first, where the most frequent stands first. None if none is close."""
    close = dict.fromkeys(get_close_matches(word, words, n=CANDIDATES, cutoff=0.7))
    return min((other for other in words if other in close), key=lambda other: edits(word, other), default=None)


def edits(a: str, b: str) -> int:
    """Letters left out, put in, replaced, or swapped with their neighbour, at least, to make b of a.

    The optimal string alignment distance, row by row:
    d_ij = min(d_(i-1)j + 1, d_i(j-1) + 1, d_(i-1)(j-1) + [a_i ≠ b_j], and d_(i-2)(j-2) + 1 where a_i a_(i-1) = b_(j-1) b_j).
    """
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i in range(1, len(a) + 1):
        earlier, before, row = before, row, [i]
        for j in range(1, len(b) + 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 1] + b[j - 2]:
                best = min(best, earlier[j - 2] + 1)
            row.append(best)
    return row[-1]
