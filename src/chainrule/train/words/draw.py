"""What a job draws at random: which words are kept, how wide each window is, which words are the negatives.

Every draw is a function of (seed, epoch, job) and of its place in the job alone (SplitMix64: Steele, Lea and Flood
2014), so that a run's position in its randomness is the number of its job: nothing else is kept, nothing replayed.
"""

from __future__ import annotations

import numpy as np

from chainrule.train.words.arithmetic import inlined

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
END = -1  # of a sentence, in a corpus of word numbers


@inlined
def mixed(word):  # type: ignore[no-untyped-def]
    """SplitMix64's finalizer."""
    word = (word ^ (word >> np.uint64(30))) * _MIX1
    word = (word ^ (word >> np.uint64(27))) * _MIX2
    return word ^ (word >> np.uint64(31))


@inlined
def stream(seed, epoch, job):  # type: ignore[no-untyped-def]
    """The first state of a job's own generator."""
    state = mixed(np.uint64(seed) + _GOLDEN)
    state = mixed(state ^ (np.uint64(epoch) + _GOLDEN))
    return mixed(state ^ (np.uint64(job) + _GOLDEN))


@inlined
def below(word, n):  # type: ignore[no-untyped-def]
    """A number of 0 ... n - 1 from the upper 32 bits of a random word (Lemire 2019, without rejection: bias < n / 2^32)."""
    return np.int64(((word >> _32) * np.uint64(n)) >> _32)


@inlined
def select(tokens, keep_V, state, kept, first, last, window, dynamic):  # type: ignore[no-untyped-def]
    """Drop frequent words at random, then draw a window for each word that is left. Returns (words left, state).

    tokens       word numbers, END after each sentence
    keep_V       probability of keeping each word, in units of 2^-32
    kept         the words left
    first, last  the window of each: places first ... last - 1 of `kept`, within its sentence; the word itself is among them

    Words are dropped before windows are laid, so that windows reach further where frequent words were (Mikolov et al.
    2013). A dynamic window reaches 1 ... window words to each side, all equally likely.
    """
    n = start = 0
    for i in range(len(tokens) + 1):
        token = tokens[i] if i < len(tokens) else END
        if token >= 0:
            state += _GOLDEN
            if (mixed(state) & _LOW) <= np.uint64(keep_V[token]):
                kept[n] = token
                n += 1
            continue
        for c in range(start, n):
            reach = window
            if dynamic:
                state += _GOLDEN
                reach = 1 + below(mixed(state), window)
            first[c] = max(start, c - reach)
            last[c] = min(n, c + reach + 1)
        start = n
    return n, state


@inlined
def draw_negatives(noise_V, alias_V, state, negative_K, count):  # type: ignore[no-untyped-def]
    """Draw `count` words of the noise distribution by Walker's alias method; returns the state.

    Column v, one of V equally likely ones, holds word v with probability noise_V[v] / 2^32, else word alias_V[v].
    """
    for k in range(count):
        state += _GOLDEN
        word = mixed(state)
        v = below(word, len(noise_V))
        negative_K[k] = v if (word & _LOW) <= np.uint64(noise_V[v]) else alias_V[v]
    return state
