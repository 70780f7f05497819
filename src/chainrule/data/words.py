"""Text files to words, a block at a time: never more than a few megabytes of a file are in memory.

A block ends before white space, so that what is read does not depend on the size of the blocks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chainrule.errors import DataError

BLOCK_BYTES = 4_000_000
LONGEST_WORD = 16_000_000  # bytes without white space; beyond it a file is no text
PARAGRAPH_LINES = 20
_PROBED, _PROBE_BYTES = 20, 100_000  # files and bytes of each that are looked at
END = "\0"  # of a sentence
_SPACE = b" \n\t\r\f\v"
_WORD = re.compile(rf"\w+(?:['’]\w+)*|{END}")
_SPACED = re.compile(rf"[^\s{END}]+|{END}")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")

Split = Literal["letters", "spaces"]
Sentence = Literal["line", "paragraph"]


@dataclass(frozen=True)
class Rule:
    """How text becomes words.

    split      "letters": letters and digits, with apostrophes inside; "spaces": whatever stands between white space
    sentence   what no window crosses: a line, or a paragraph (blank lines between)
    lowercase  all letters small
    """

    split: Split = "letters"
    sentence: Sentence = "line"
    lowercase: bool = True


def sentence_of(paths: Sequence[Path]) -> tuple[Sentence, str]:
    """What a sentence of these texts is, and why: one line in `PARAGRAPH_LINES` or more is blank, or not."""
    lines = blank = 0
    for path in paths[:_PROBED]:
        beginning = next(blocks(path, _PROBE_BYTES)).split("\n")
        lines += len(beginning)
        blank += sum(not line.strip() for line in beginning[:-1])
    if blank * PARAGRAPH_LINES >= lines:
        return "paragraph", f"auto: {blank:,} of the first {lines:,} lines are blank"
    return "line", f"auto: {blank:,} of the first {lines:,} lines are blank, so that lines are no parts of a paragraph"


def words_of(text: str, rule: Rule) -> list[str]:
    """The words of a text in their order, END where a sentence ends."""
    text = text.replace(END, " ")
    text = text.replace("\n", END) if rule.sentence == "line" else _BLANK_LINE.sub(END, text)
    return (_WORD if rule.split == "letters" else _SPACED).findall(text.lower() if rule.lowercase else text)


def blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[str]:
    """A file's text in parts of about `size` bytes that end between words. Raises DataError if it is no utf-8 text."""
    rest, place = b"", 0
    try:
        with path.open("rb") as file:
            while data := file.read(size):
                data = rest + data
                cut = _between_words(data, path)
                yield _decode(data[:cut], path, place)
                rest, place = data[cut:], place + cut
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    yield _decode(rest, path, place)


def _between_words(data: bytes, path: Path) -> int:
    """Where the last run of white space begins; 0 if there is none."""
    last = max(data.rfind(space) for space in (b" ", b"\n", b"\t"))
    if last < 0 and len(data) > LONGEST_WORD:
        raise DataError(f"{path} has no white space in {len(data):,} bytes: text is expected")
    return len(data[: last + 1].rstrip(_SPACE))


def _decode(data: bytes, path: Path, place: int) -> str:
    if b"\0" in data:
        raise DataError(
            f"{path} is a binary file (it holds a zero byte at {place + data.index(0):,}): text is expected"
        )
    try:
        return data.decode("utf-8-sig" if place == 0 else "utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        at = place + error.start
        raise DataError(
            f"{path} is not utf-8 (byte {data[error.start]:#04x} at {at:,}): text in utf-8 is expected"
        ) from None


def sentences_in(paths: Sequence[Path], rule: Rule, size: int = BLOCK_BYTES) -> Iterator[list[str]]:
    """The words of all files, block by block; the end of a file ends a sentence."""
    for path in paths:
        for text in blocks(path, size):
            yield words_of(text, rule)
        yield [END]


def count_words(paths: Sequence[Path], rule: Rule) -> Counter[str]:
    """How often each word occurs. Raises DataError if there is none."""
    counts: Counter[str] = Counter()
    for block in sentences_in(paths, rule):
        counts.update(block)
    del counts[END]
    if not counts:
        raise DataError(f"no words in {', '.join(map(str, paths))}: text is expected")
    return counts
