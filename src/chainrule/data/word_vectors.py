"""Word vectors: nearest words, analogies, and the two file formats of the word2vec program, which gensim reads, too.

text    "V D\\n", then V lines "word x_1 ... x_D"
binary  "V D\\n", then V times the word, a space, D little-endian float32, a line end
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from chainrule.data.spelling import nearest_spelling
from chainrule.errors import DataError

_LONGEST_HEADER = 64
_LONGEST_WORD = 10_000  # bytes; a longer one means that the file is damaged
_MOST = 10**12  # floats of a file: more is a damaged header

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class WordVectors:
    """One vector for each word, the most frequent word first: words_V, vectors_VD."""

    words: tuple[str, ...]
    vectors: Vectors

    @cached_property
    def number(self) -> Mapping[str, int]:
        """The place of each word."""
        return MappingProxyType({word: place for place, word in enumerate(self.words)})

    @cached_property
    def units(self) -> Vectors:
        """Vectors of length 1; a zero vector stays zero."""
        length = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return np.asarray(self.vectors / np.where(length > 0, length, 1), np.float32)

    def place(self, word: str) -> int:
        """The number of a word. Raises DataError with the nearest spelling if there is no such word."""
        if word not in self.number:
            close = nearest_spelling(word, self.words)
            hint = f"did you mean {close!r}?" if close else f"the most frequent are {', '.join(self.words[:5])}"
            raise DataError(f"{word!r} is none of the {len(self.words):,} words; {hint}")
        return self.number[word]

    def similar(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """The words of the largest cosine with a word's vector, and that cosine."""
        place = self.place(word)
        return self._nearest(self.units[place], count, [place])

    def analogy(self, a: str, b: str, c: str, count: int = 10) -> list[tuple[str, float]]:
        """a is to b as c is to ...: the words nearest to b - a + c, of unit vectors (3CosAdd: Mikolov et al. 2013)."""
        places = [self.place(word) for word in (a, b, c)]
        unit_a, unit_b, unit_c = self.units[places]
        wanted = unit_b - unit_a + unit_c
        return self._nearest(wanted / max(float(np.linalg.norm(wanted)), 1e-12), count, places)

    def _nearest(self, unit: Vectors, count: int, without: Sequence[int]) -> list[tuple[str, float]]:
        cosines = self.units @ unit
        cosines[list(without)] = -np.inf
        count = max(0, min(count, len(cosines) - len(set(without))))
        best = np.argsort(-cosines, kind="stable")[:count]
        return [(self.words[place], float(cosines[place])) for place in best]


def save_text(path: Path, vectors: WordVectors) -> None:
    """Write the text format; nine digits, so that reading gives the same float32."""
    _refuse_spaces(vectors.words)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{len(vectors.words)} {vectors.vectors.shape[1]}\n")
        for word, row in zip(vectors.words, vectors.vectors.tolist(), strict=True):
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in row)}\n")


def save_binary(path: Path, vectors: WordVectors) -> None:
    """Write the binary format."""
    _refuse_spaces(vectors.words)
    with path.open("wb") as file:
        file.write(f"{len(vectors.words)} {vectors.vectors.shape[1]}\n".encode())
        for word, row in zip(vectors.words, vectors.vectors.astype("<f4"), strict=True):
            file.write(word.encode() + b" " + row.tobytes() + b"\n")


def _refuse_spaces(words: Iterable[str]) -> None:
    for word in words:
        if not word or any(letter in word for letter in " \n"):
            raise DataError(f"{word!r} cannot be written: a word of these formats is not empty and holds no space")


def load_vectors(path: Path) -> WordVectors:
    """Read either format. Raises DataError if the file is empty, cut, damaged or something else."""
    try:
        with path.open("rb") as file:
            count, dimensions = _header(file.readline(_LONGEST_HEADER), path)
            left = os.fstat(file.fileno()).st_size - file.tell()
            least = count * (2 + 2 * dimensions)  # a letter and a space; " 0" for each number
            if left < least:
                raise DataError(
                    f"{path} is cut: {count:,} vectors of {dimensions} numbers do not fit in {left:,} bytes"
                )
            if _is_text(file, dimensions):
                return _read_text(file, path, count, dimensions)
            return _read_binary(file, path, count, dimensions)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _header(line: bytes, path: Path) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or not line.endswith(b"\n"):
        seen = "is empty" if not line else f"begins with {line[:30]!r}"
        raise DataError(
            f'{path} is no file of word vectors: it {seen}; a line "number-of-words dimensions" is expected'
        )
    count, dimensions = int(parts[0]), int(parts[1])
    if not count or not dimensions or count * dimensions > _MOST:
        raise DataError(f"{path} announces {count:,} vectors of {dimensions:,} numbers: no such file can be meant")
    return count, dimensions


def _is_text(file: BinaryIO, dimensions: int) -> bool:
    """The first line of vectors reads as a word and D numbers; the file's position stays."""
    place = file.tell()
    line = file.readline(_LONGEST_WORD + 64 * dimensions)
    file.seek(place)
    parts = line.split()
    try:
        [float(part) for part in parts[-dimensions:]]
    except ValueError:
        return False
    return len(parts) == dimensions + 1 and _is_utf8(line)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_text(file: BinaryIO, path: Path, count: int, dimensions: int) -> WordVectors:
    words, vectors = [], np.empty((count, dimensions), np.float32)
    for place in range(count):
        line = file.readline()
        word, *numbers = line.rstrip(b"\n").rstrip(b" ").split(b" ")
        try:
            with np.errstate(over="ignore"):  # beyond float32 is inf, which is refused with the others
                vectors[place] = np.array([float(number) for number in numbers]).reshape(dimensions)
        except ValueError:
            raise DataError(
                f"{path}, line {place + 2}: a word and {dimensions} numbers are expected, got {line[:60]!r}"
            ) from None
        words.append(word)
    return _checked(path, words, vectors, file.read(1))


def _read_binary(file: BinaryIO, path: Path, count: int, dimensions: int) -> WordVectors:
    words, vectors = [], np.empty((count, dimensions), np.float32)
    data, at = file.read(), 0
    for place in range(count):
        space = data.find(b" ", at, at + _LONGEST_WORD)
        end = space + 1 + 4 * dimensions
        if space < 0 or end > len(data):
            raise DataError(f"{path} is cut or damaged at vector {place + 1:,} of {count:,}")
        words.append(data[at:space].lstrip(b"\n"))
        vectors[place] = np.frombuffer(data, "<f4", dimensions, space + 1)
        at = end
    return _checked(path, words, vectors, data[at:].strip(b"\n"))


def _checked(path: Path, encoded: list[bytes], vectors: Vectors, rest: bytes) -> WordVectors:
    try:
        words = [word.decode("utf-8") for word in encoded]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it holds a word that is not utf-8: {error.object[:60]!r}") from None
    if rest:
        raise DataError(f"{path} goes on after its {len(words):,} vectors: it is damaged, or its first line is wrong")
    if not np.isfinite(vectors).all():
        place = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(f"{path} is damaged: vector {place + 1:,} ({words[place]!r}) holds inf or nan")
    if len(set(words)) < len(words):
        twice = Counter(words).most_common(1)[0][0]
        raise DataError(f"{path} is damaged: {twice!r} is there twice")
    return WordVectors(tuple(words), vectors)
