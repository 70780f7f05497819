"""A CSV file row by row: its encoding, delimiter and header found out, each row with its line number.

The standard library's csv module reads strictly; what it cannot read is a DataError that names file and line. At most one
line of the file is in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from chainrule.data.tables import cells
from chainrule.data.tables.column import quoted, shortened
from chainrule.errors import DataError

DELIMITERS = ("\t", ";", "|", ",")  # a comma stands in decimals and words, so that it is tried last
PROBE_ROWS = 100
PROBE_BYTES = 8192
SAME_WIDTH = 0.9  # of the rows: a damaged row is to be named by its line, not to hide the delimiter
MAX_LINE = 64_000_000  # characters; a longer line is no row but a file without line ends

Row = tuple[int, list[str]]  # line number, counted from 1, and fields


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    names    of the columns
    header   its first row holds the names
    decimal  "," in a file delimited by ";", where 1,5 is a number; else "."
    """

    encoding: str
    delimiter: str
    header: bool
    names: tuple[str, ...]

    @property
    def decimal(self) -> str:
        """The decimal mark that is read beside the point."""
        return "," if self.delimiter == ";" else "."

    def __str__(self) -> str:
        mark = {"\t": "tabs"}.get(self.delimiter, repr(self.delimiter))
        return f"delimited by {mark}, {'names in the first row' if self.header else 'no row of names'}"


def sniff(path: Path, *, encoding: str = "utf-8", delimiter: str = "", header: bool | None = None) -> Dialect:
    """Find out what is not given: the delimiter ("") and whether the first row holds names (None).

    Raises DataError if the file cannot be read, is empty or binary, or has two columns of one name.
    """
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    _refuse_binary(path, encoding)
    delimiter = delimiter or _delimiter(path, encoding)
    probe = [fields for _, fields in islice(raw_rows(path, encoding, delimiter), PROBE_ROWS)]
    if not probe:
        raise DataError(f"{path} is empty: a table with a row of names and rows of values is expected")
    header = _has_header(probe) if header is None else header
    names = [name.strip() for name in probe[0]] if header else [""] * len(probe[0])
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    _refuse_twins(path, names)
    return Dialect(encoding, delimiter, header, tuple(names))


def rows(path: Path, dialect: Dialect) -> Iterator[Row]:
    """The rows below the header. Raises DataError at a row that has more or fewer fields than there are names."""
    wanted = len(dialect.names)
    for line, fields in islice(raw_rows(path, dialect.encoding, dialect.delimiter), int(dialect.header), None):
        if len(fields) != wanted:
            raise DataError(
                f"{path}:{line} has {len(fields):,} fields, {wanted:,} are expected "
                f"({quoted(dialect.names)}); it begins {shortened(dialect.delimiter.join(fields))!r}"
            )
        yield line, fields


def raw_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    """Every row that is not blank."""
    line = 1
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(_lines(path, file), delimiter=delimiter, strict=True)
            for fields in reader:
                if len(fields) > 1 or (fields and fields[0].strip()):
                    yield line, fields
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line} is no row of a CSV file: {_explained(error)}") from None
    except UnicodeDecodeError as error:
        raise DataError(_wrong_encoding(path, encoding, error)) from None
    except UnicodeError as error:  # UTF-16 without its mark, and the like
        raise DataError(f"{path} is not {encoding}: {error}; name its encoding with --table.encoding") from None
    except LookupError:
        raise DataError(
            f"encoding {encoding!r} is not known; take for instance utf-8, latin-1, cp1252, utf-16"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    number = 0
    while text := file.readline(MAX_LINE):
        number += 1
        if len(text) == MAX_LINE and not text.endswith("\n"):
            raise DataError(
                f"{path}:{number} is longer than {MAX_LINE:,} characters: a file with line ends is expected"
            )
        yield text


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "field larger than field limit" in text:
        return f"a field is longer than {csv.field_size_limit():,} characters; perhaps a quote that is opened is never closed"
    if "unexpected end of data" in text:
        return "the file ends inside a quoted field; perhaps it is cut off"
    return text


def _wrong_encoding(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """Where the byte stands: the decoder only knows its own chunk, so the file's bytes are searched again."""
    bad = error.object[error.start : error.end]
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as here:
                bad, place = here.object[here.start : here.end], f"{path}:{number}"
                break
        else:
            place = str(path)
    name = encoding.removesuffix("-sig")
    return f"{place} is not {name} (byte {bad[0]:#04x}); name its encoding, for instance --table.encoding latin-1"


def _refuse_binary(path: Path, encoding: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(PROBE_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding == "utf-8-sig":
        raise DataError(f"{path} is utf-16; name its encoding: --table.encoding utf-16")
    if b"\0" in head and encoding == "utf-8-sig":
        raise DataError(f"{path} is a binary file (it holds zero bytes): a CSV or Parquet file is expected")


def _delimiter(path: Path, encoding: str) -> str:
    """The first one that gives the rows of the beginning as many fields as their first row, and two or more; else ","."""
    for delimiter in DELIMITERS:
        try:
            widths = [len(fields) for _, fields in islice(raw_rows(path, encoding, delimiter), PROBE_ROWS)]
        except DataError:
            continue
        if widths and widths[0] > 1 and widths.count(widths[0]) > SAME_WIDTH * len(widths):
            return delimiter
    return ","


def _has_header(probe: list[list[str]]) -> bool:
    """True unless the first row holds a number or the same words as a row below it."""
    first = probe[0]
    return not any(cells.number(text) is not None for text in first) and first not in probe[1:]


def _refuse_twins(path: Path, names: list[str]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in seen:
            raise DataError(
                f"{path}: columns {seen[name]:,} and {place:,} are both called {name!r}; give each its own name"
            )
        seen[name] = place
