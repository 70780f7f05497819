"""Text files to documents: the standard library's own sources, or the user's files and folders (utf-8).

The order is that of the sorted relative paths. What a folder holds beside text (images, empty files) is left out and
counted; a file that the user names must be usable. A file is read when its text is asked for, and not kept: a corpus
may be larger than memory.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chainrule.errors import DataError

_TESTS = frozenset({"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages"})
_GENERATED = frozenset({"topics.py"})
_BINARY_PROBE = 8192
_BOUNDARY = re.compile(r"(?<=\S)\n(?=\S)")


@dataclass(frozen=True)
class Document:
    """One text: its path relative to what the user named (with /, the same on every machine), and where it is.

    source       the file, or the text itself
    start, stop  the characters of it that are meant
    """

    path: str
    source: Path | str
    start: int = 0
    stop: int | None = None

    @property
    def text(self) -> str:
        """The text, read now. Raises DataError if the file has changed into something that is no text."""
        if isinstance(self.source, str):
            return self.source[self.start : self.stop]
        try:
            return _decode_strictly(self.source)[self.start : self.stop]
        except _UnusableError as problem:
            raise DataError(f"{self.source} {problem}: it was text when it was first read") from None

    @cached_property
    def bytes(self) -> int:
        """Size in utf-8."""
        return len(self.text.encode())


def pieces(text: str, at_most: int = 1_000_000) -> list[str]:
    """A text longer than `at_most`, cut behind a single line end: GPT-2's byte pairs join nothing across that."""
    parts, start = [], 0
    while len(text) - start > at_most and (found := _BOUNDARY.search(text, start + at_most)):
        parts.append(text[start : found.end()])
        start = found.end()
    return [*parts, text[start:]]


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their paths, and what was left out, as (reason, number of files)."""

    source: str
    documents: tuple[Document, ...]
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all documents in utf-8."""
        return sum(document.bytes for document in self.documents)


def standard_library() -> Corpus:
    """The .py files of the running Python's standard library, without its tests and without installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in _walk(root) if path.suffix == ".py" and path.name not in _GENERATED]
    library = [path for path in files if _is_library(path.relative_to(root)) and _is_text(path)]
    documents = tuple(Document(path.relative_to(root).as_posix(), path) for path in library)
    if not documents:
        raise DataError(f"no Python sources in {root}: this Python has no .py files of its library; use --text PATH")
    return Corpus(f"Python {sysconfig.get_python_version()} standard library", documents)


def library_files() -> list[Path]:
    """The files of `standard_library`, unread. Raises DataError if this Python has none."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in _walk(root) if path.suffix == ".py" and path.name not in _GENERATED]
    files = [path for path in files if _is_library(path.relative_to(root)) and _looks_like_text(path)]
    if not files:
        raise DataError(f"no Python sources in {root}: this Python has no .py files of its library; use --text PATH")
    return files


def text_files(paths: Iterable[str | Path]) -> tuple[list[Path], int]:
    """The user's files and those of their folders, unread, for text that need not fit in memory; how many were left out.

    Left out are files of a folder that are empty or begin with bytes that are no text. Raises DataError for a named file
    of that kind, and if nothing is left.
    """
    roots = [Path(path).expanduser() for path in paths]
    files: dict[Path, Path] = {}
    left_out = 0
    for root in roots:
        if not root.exists():
            raise DataError(f"{root} does not exist: --text takes files and folders")
        for path in _walk(root) if root.is_dir() else [root]:
            if _looks_like_text(path):
                files.setdefault(path.resolve(), path)
            elif path == root:
                raise DataError(f"{path} is empty or a binary file: text in utf-8 is expected")
            else:
                left_out += 1
    if not files:
        raise DataError(f"no text in {', '.join(map(str, roots))}: {left_out} files are empty or binary")
    return list(files.values()), left_out


def _looks_like_text(path: Path) -> bool:
    """Neither empty nor with a zero byte or a byte that is no utf-8 near its beginning. Raises DataError if unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(_BINARY_PROBE)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    whole = start.rsplit(b"\n", 1)[0] if len(start) == _BINARY_PROBE else start  # no letter is cut at a line's end
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(start) == _BINARY_PROBE
    return bool(start) and b"\0" not in start


def _is_library(path: Path) -> bool:
    in_tests = any(part in _TESTS or part.startswith(("config-", "lib-")) for part in path.parts[:-1])
    return not in_tests and not path.name.startswith("test_")


def read_text(paths: Iterable[str | Path]) -> Corpus:
    """Documents of the user's files and folders. Raises DataError for a file that cannot be used."""
    roots = [Path(path).expanduser() for path in paths]
    documents: dict[str, Document] = {}
    left_out: dict[str, int] = {}
    for root in roots:
        if not root.exists():
            raise DataError(f"{root} does not exist: --text takes files and folders")
        for path in _walk(root) if root.is_dir() else [root]:
            try:
                _decode_strictly(path)
            except _UnusableError as problem:
                if path == root:
                    raise DataError(f"{path} {problem}: text in utf-8 is expected") from None
                left_out[problem.kind] = left_out.get(problem.kind, 0) + 1
                continue
            documents.setdefault(str(path.resolve()), Document(_relative(path, root), path))
    if not documents:
        raise DataError(f"no text in {', '.join(map(str, roots))}: {_explain(left_out)}")
    ordered = sorted(documents.values(), key=lambda document: document.path)
    return Corpus(", ".join(map(str, roots)), tuple(ordered), tuple(sorted(left_out.items())))


def _relative(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _explain(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items())) or "the folder is empty"


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder, sorted; hidden files and folders and byte code are not text."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


class _UnusableError(Exception):
    """A file that is no text; `kind` counts such files."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _decode_strictly(path: Path) -> str:
    """The text of a file; line ends become \\n. Raises _UnusableError if it is no text, DataError if unreadable."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if b"\0" in raw[:_BINARY_PROBE]:
        raise _UnusableError("binary", "is a binary file (it holds zero bytes)")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _UnusableError(
            "not utf-8", f"is not utf-8 (byte {error.object[error.start]:#04x} at {error.start})"
        ) from None
    if not text.strip():
        raise _UnusableError("empty", "is empty")
    return text


def _is_text(path: Path) -> bool:
    """Whether a file can be used (the library keeps a few that are not utf-8)."""
    try:
        return bool(_decode_strictly(path))
    except _UnusableError:
        return False
