"""Text files to documents: the standard library's own sources, or the user's files and folders (utf-8).

The order is that of the sorted relative paths. What a folder holds beside text (images, empty files) is left out and
counted; a file that the user names must be usable. A file is read when its text is asked for, and not kept: a corpus
may be larger than memory.
"""

from __future__ import annotations

import codecs
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chainrule.errors import DataError

_TESTS = frozenset({"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages"})
_GENERATED = frozenset({"topics.py"})
_PROBE = 8192
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
            return _read_whole(self.source)[self.start : self.stop]
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


def standard_library() -> Corpus:
    """The .py files of the running Python's standard library, without its tests and without installed packages."""
    root = _library_root()
    documents = tuple(Document(path.relative_to(root).as_posix(), path) for path in _library_files(root, _read_whole))
    return Corpus(f"Python {sysconfig.get_python_version()} standard library", documents)


def library_files() -> list[Path]:
    """The files of `standard_library`, of which only the beginning was looked at. Raises DataError if there are none."""
    return _library_files(_library_root(), _read_beginning)


def read_text(paths: Iterable[str | Path]) -> Corpus:
    """Documents of the user's files and folders. Raises DataError for a file that cannot be used."""
    names, files, left_out = _user_files(paths, _read_whole)
    ordered = sorted((Document(name, path) for path, name in files), key=lambda document: document.path)
    return Corpus(names, tuple(ordered), tuple(sorted(left_out.items())))


def text_files(paths: Iterable[str | Path]) -> tuple[list[Path], int]:
    """The files of `read_text` for text that need not fit in memory, of which only the beginning was looked at.

    Beside them, how many were left out. Raises DataError for a named file that begins as no text, and if none is left.
    """
    _, files, left_out = _user_files(paths, _read_beginning)
    return [path for path, _ in files], sum(left_out.values())


def _library_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _library_files(root: Path, read: Callable[[Path], str]) -> list[Path]:
    """Those that are text (the library keeps a few that are not utf-8)."""
    files = [path for path in _walk(root) if path.suffix == ".py" and path.name not in _GENERATED]
    files = [path for path in files if _is_library(path.relative_to(root)) and not _problem(path, read)]
    if not files:
        raise DataError(f"no Python sources in {root}: this Python has no .py files of its library; use --text PATH")
    return files


def _is_library(path: Path) -> bool:
    in_tests = any(part in _TESTS or part.startswith(("config-", "lib-")) for part in path.parts[:-1])
    return not in_tests and not path.name.startswith("test_")


def _user_files(
    paths: Iterable[str | Path], read: Callable[[Path], str]
) -> tuple[str, list[tuple[Path, str]], dict[str, int]]:
    """(what was named, each file once with its path below that, how many were left out by reason)."""
    roots = [Path(path).expanduser() for path in paths]
    names = ", ".join(map(str, roots))
    files: dict[Path, tuple[Path, str]] = {}
    left_out: dict[str, int] = {}
    for root in roots:
        if not root.exists():
            raise DataError(f"{root} does not exist: --text takes files and folders")
        for path in _walk(root) if root.is_dir() else [root]:
            problem = _problem(path, read)
            if problem is None:
                files.setdefault(path.resolve(), (path, _relative(path, root)))
            elif path == root:
                raise DataError(f"{path} {problem}: text in utf-8 is expected")
            else:
                left_out[problem.kind] = left_out.get(problem.kind, 0) + 1
    if not files:
        raise DataError(f"no text in {names}: {_explain(left_out)}")
    return names, list(files.values()), left_out


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


def _problem(path: Path, read: Callable[[Path], str]) -> _UnusableError | None:
    """What keeps a file from being text, as far as `read` looks."""
    try:
        read(path)
    except _UnusableError as problem:
        return problem
    return None


def _read_whole(path: Path) -> str:
    """The text of a file; line ends become \\n. Raises _UnusableError if it is no text, DataError if unreadable."""
    return _decoded(_bytes_of(path), whole=True).replace("\r\n", "\n")


def _read_beginning(path: Path) -> str:
    """The first characters, so that a file of any size costs the same. Raises as `_read_whole`."""
    raw = _bytes_of(path, _PROBE)
    return _decoded(raw, whole=len(raw) < _PROBE)


def _bytes_of(path: Path, at_most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(at_most)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _decoded(raw: bytes, *, whole: bool) -> str:
    """Bytes as utf-8; if they are not the whole file, their last letter may be cut."""
    if b"\0" in raw[:_PROBE]:
        raise _UnusableError("binary", "is a binary file (it holds zero bytes)")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(raw, final=whole)
    except UnicodeDecodeError as error:
        raise _UnusableError(
            "not utf-8", f"is not utf-8 (byte {error.object[error.start]:#04x} at {error.start})"
        ) from None
    if whole and not text.strip():
        raise _UnusableError("empty", "is empty")
    return text
