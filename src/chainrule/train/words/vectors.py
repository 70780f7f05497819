"""What a run leaves for its user: vectors in both formats, and the nearest words of some."""

from __future__ import annotations

from pathlib import Path

from chainrule.data.word_vectors import WordVectors, save_binary, save_text

BINARY, TEXT = "vectors.bin", "vectors.txt"
_SHOWN = 6
_NEAREST = 6
_LEAST_LETTERS = 4  # of a word that is shown without being asked for
_FREQUENT = 50  # words that are passed over: articles, conjunctions


def save_vectors(folder: Path, vectors: WordVectors) -> None:
    """Write vectors.bin and vectors.txt."""
    save_binary(folder / BINARY, vectors)
    save_text(folder / TEXT, vectors)


def nearest(vectors: WordVectors, asked: tuple[str, ...]) -> list[str]:
    """Lines "word: nearest words" of the words asked for, or of some frequent ones."""
    passed = min(_FREQUENT, len(vectors.words) // 10)
    telling = [word for word in vectors.words[passed:] if len(word) >= _LEAST_LETTERS and word[0].isalpha()]
    words = asked or tuple(telling[:_SHOWN])
    return [f"{word}: {', '.join(near for near, _ in vectors.similar(word, _NEAREST))}" for word in words]
