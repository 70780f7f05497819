"""How good word vectors are: similarity judged by people (WordSim-353, SimLex-999) and analogies (Google's questions).

Pairs:      "word word judgement" a line, separated by tabs; # begins a comment. Figure: Spearman's rank correlation.
Questions:  "a b c d" a line, ": section" before each section. Figure: share of questions whose nearest word to
            b - a + c, the three left out, is d.

Both as gensim measures them, so that figures can be compared: letters' case does not matter, only the `MOST_FREQUENT`
words take part, and what holds another word is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chainrule.data.word_vectors import WordVectors
from chainrule.errors import DataError

MOST_FREQUENT = 300_000
_TOGETHER = 512  # questions whose cosines are in memory at once


@dataclass(frozen=True)
class Score:
    """One test's outcome: its kind ("pairs" or "analogies"), the figure, how many took part of how many."""

    file: str
    kind: str
    figure: float
    used: int
    total: int

    def __str__(self) -> str:
        what = "Spearman's rank correlation" if self.kind == "pairs" else "of analogies right"
        return f"{self.figure:.4f} {what}, {self.used:,} of {self.total:,} {self.kind} known"


def evaluate(vectors: WordVectors, path: Path) -> Score:
    """Measure on a file of either kind. Raises DataError if it is none, or if none of its words is known."""
    lines, places = _lines(path), _places(vectors.words)
    if _are_questions(lines):
        return _score_questions(vectors, path, places, lines)
    first, second, judged = _known_pairs(places, path, lines)
    cosines = (vectors.units[first] * vectors.units[second]).sum(axis=1)
    return Score(path.name, "pairs", spearman(cosines, judged), len(judged), len(lines))


def require_test(words: Sequence[str], path: Path) -> None:
    """Raise what `evaluate` would raise for vectors of these words."""
    lines, places = _lines(path), _places(words)
    if _are_questions(lines):
        _known_questions(places, path, lines)
    else:
        _known_pairs(places, path, lines)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not utf-8: {error.reason} at byte {error.start:,}") from None
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _are_questions(lines: list[str]) -> bool:
    return any(line.startswith(":") for line in lines)


def _places(words: Sequence[str]) -> dict[str, int]:
    """The place of each word in capital letters; of words that differ in case only, the most frequent."""
    places: dict[str, int] = {}
    for place, word in enumerate(words[:MOST_FREQUENT]):
        places.setdefault(word.upper(), place)
    return places


def _known_pairs(
    places: dict[str, int], path: Path, lines: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(first words, second words, judgements) of the pairs that are known."""
    judged = [_pair(line, path) for line in lines]
    known = [(places[a], places[b], value) for a, b, value in judged if a in places and b in places]
    if len(known) < 2:
        raise DataError(f"{path}: the vectors know {len(known)} of its {len(lines)} pairs; two are needed to rank them")
    first, second, values = zip(*known, strict=True)
    return np.array(first), np.array(second), np.array(values, np.float64)


def _pair(line: str, path: Path) -> tuple[str, str, float]:
    parts = line.split("\t") if "\t" in line else line.replace(",", " ").split()
    try:
        return parts[0].strip().upper(), parts[1].strip().upper(), float(parts[2])
    except (IndexError, ValueError):
        raise DataError(f'{path}: "word word judgement" is expected, got {line[:60]!r}') from None


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Correlation of the ranks; equal values share the mean of their ranks. 0 if either side is all equal."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], np.float64)


def _known_questions(places: dict[str, int], path: Path, lines: list[str]) -> tuple[NDArray[np.int64], int]:
    """(places of a, b, c, d for each question that is known, number of all)."""
    questions = [line.upper().split() for line in lines if not line.startswith(":")]
    wrong = next((words for words in questions if len(words) != 4), None)
    if wrong is not None:
        raise DataError(f'{path}: "a b c d" is expected, got {" ".join(wrong)[:60]!r}')
    known = [[places[word] for word in words] for words in questions if all(word in places for word in words)]
    if not known:
        raise DataError(f"{path}: the vectors know none of its {len(questions)} questions")
    return np.array(known), len(questions)


def _score_questions(vectors: WordVectors, path: Path, places: dict[str, int], lines: list[str]) -> Score:
    known, total = _known_questions(places, path, lines)
    own = np.array(sorted(places.values()))  # a word that is there in another case is no answer
    right = sum(int((own[answers] == part[:, 3]).sum()) for part, answers in _answers(vectors.units, own, known))
    return Score(path.name, "analogies", right / len(known), len(known), total)


def _answers(
    units: NDArray[np.float32], own: NDArray[np.int64], known: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.intp]]]:
    """(questions, answers) for some hundred questions at a time; an answer is a place in `own`."""
    candidates = units[own]
    for start in range(0, len(known), _TOGETHER):
        part = known[start : start + _TOGETHER]
        a, b, c = (units[part[:, side]] for side in range(3))
        cosines = (b - a + c) @ candidates.T
        for side in range(3):
            cosines[np.arange(len(part)), np.searchsorted(own, part[:, side])] = -np.inf
        yield part, cosines.argmax(axis=1)
