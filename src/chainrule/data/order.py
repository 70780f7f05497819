"""The order of the training windows: a pseudo-random permutation of 0 ... n - 1, computed place by place.

Window `place` of epoch `epoch` is a function of (seed, epoch, place) alone, so that a run's position in the data is one
number, the samples consumed, and no list of indices and no generator's state is kept. The permutation is a Feistel
network (Luby and Rackoff 1988) on the smallest 4^b >= n numbers, walked until it falls below n ("cycle walking", Black
and Rogaway 2002); its round function is the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
Indices = NDArray[np.int64]
_Words = NDArray[np.uint64]


def mix(words: _Words) -> _Words:
    """SplitMix64's finalizer: a bijection of 64-bit words in which each input bit flips half of the output bits."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def permuted(places: Indices, n: int, seed: int, epoch: int) -> Indices:
    """Where each place of 0 ... n - 1 goes in this epoch's permutation."""
    half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
    stream = mix(mix(np.array([seed], np.uint64)) ^ np.array([epoch], np.uint64))
    keys = np.add(stream, np.arange(ROUNDS, dtype=np.uint64), dtype=np.uint64)
    words = _feistel(places.astype(np.uint64), half, keys)
    while (outside := words >= np.uint64(n)).any():
        words[outside] = _feistel(words[outside], half, keys)
    return words.astype(np.int64)


def _feistel(words: _Words, half: np.uint64, keys: _Words) -> _Words:
    """Swap and mix the two halves of `half` bits each: a bijection, whatever the mixing."""
    mask = np.uint64((1 << int(half)) - 1)
    left, right = words >> half, words & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ mix(np.array([key]))) & mask)
    return (left << half) | right


def samples(consumed: int, count: int, n: int, seed: int) -> Indices:
    """Window indices of the next `count` samples after `consumed`; each epoch visits each of n windows once."""
    positions = np.arange(consumed, consumed + count, dtype=np.int64)
    chosen = np.empty(count, dtype=np.int64)
    for epoch in np.unique(positions // n):
        here = positions // n == epoch
        chosen[here] = permuted(positions[here] % n, n, seed, int(epoch))
    return chosen
