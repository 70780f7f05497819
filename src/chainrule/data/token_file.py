"""Token ids in a flat file of unsigned integers, so that a corpus of any size costs no memory.

A window is read through a memory map that lives for the read alone: the pages it touched are given back at once, while a
map that is kept counts every page of an epoch as the process's own. (nanoGPT's train.bin has this format.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError

CHUNK = 1 << 22
NPY = b"\x93NUMPY"
Ids = NDArray[Any]


class TokenRow(Protocol):
    """A row of token ids: an array, or a file of them."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, at: Any) -> Ids:
        """Those of a slice or of an array of places."""


@dataclass(frozen=True)
class TokenFile:
    """`count` ids of type `dtype` in `file`, which begin `offset` bytes after its start."""

    file: Path | IO[bytes]
    dtype: np.dtype[Any]
    count: int
    offset: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: Any) -> Ids:
        """The ids of a slice or of an array of places, copied from the file."""
        ids: Ids = np.memmap(self.file, self.dtype, "r", self.offset, (self.count,))[at]
        return np.array(ids)

    def part(self, start: int, stop: int) -> TokenFile:
        """The ids from `start` up to `stop`."""
        return replace(self, count=stop - start, offset=self.offset + start * self.dtype.itemsize)

    def chunks(self) -> Iterator[Ids]:
        """All ids, some million at a time."""
        for start in range(0, self.count, CHUNK):
            yield self[start : start + CHUNK]


def id_type(vocabulary: int) -> np.dtype[Any]:
    """The smallest type that holds every id."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def write_ids(file: IO[bytes], rows: Iterable[Ids], dtype: np.dtype[Any]) -> TokenFile:
    """Append rows of ids to an open file as they come."""
    count = 0
    for row in rows:
        file.write(row.astype(dtype).tobytes())
        count += len(row)
    file.flush()
    return TokenFile(file, dtype, count)


def open_ids(path: Path, vocabulary: int) -> TokenFile:
    """A token file of the user's: .npy with one row of integers, or raw ids of `id_type(vocabulary)`.

    Raises DataError if it is missing, empty, truncated, of another type, or holds an id outside the vocabulary.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            found = _npy(path, file) if file.read(len(NPY)) == NPY else _raw(path, size, id_type(vocabulary))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not found.count:
        raise DataError(f"{path} is empty: token ids are expected")
    if size < found.offset + found.count * found.dtype.itemsize:
        raise DataError(f"{path} is truncated: it announces {found.count:,} ids and is {size:,} bytes long")
    _require_known(path, found, vocabulary)
    return found


def _raw(path: Path, size: int, dtype: np.dtype[Any]) -> TokenFile:
    if size % dtype.itemsize:
        raise DataError(f"{path} is {size:,} bytes long: no whole number of ids of {dtype.itemsize} bytes each")
    return TokenFile(path, dtype, size // dtype.itemsize)


def _npy(path: Path, file: IO[bytes]) -> TokenFile:
    """The shape and the type that an .npy file announces."""
    try:
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, SyntaxError, TokenError) as error:  # numpy parses a header as Python's literal
        raise DataError(f"{path} is damaged: its .npy header cannot be read ({error})") from None
    if dtype.kind not in "iu" or len(shape) != 1:
        raise DataError(f"{path} holds {dtype} of shape {shape}; one row of integers is expected")
    return TokenFile(path, dtype, shape[0], file.tell())


def _require_known(path: Path, ids: TokenFile, vocabulary: int) -> None:
    for number, chunk in enumerate(ids.chunks()):
        wrong = np.flatnonzero((chunk < 0) | (chunk >= vocabulary))
        if len(wrong):
            place = number * CHUNK + int(wrong[0])
            raise DataError(
                f"{path} holds the id {chunk[wrong[0]]} at place {place:,}; the tokenizer knows {vocabulary:,} tokens"
            )
