"""Damaged, cut off, empty, huge and wrongly encoded files: a DataError that names file and line, or a whole table."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.data.tables import csv_rows
from chainrule.data.tables.read import read_table
from chainrule.errors import DataError


def table_or_message(path):
    """The table, or the words of the DataError; any other error is a failure."""
    try:
        return read_table(path)
    except DataError as error:
        return str(error)


def is_whole(table):
    return all(len(column.missing) == table.rows for column in table.columns)


def refused(tmp_path, content, words, **how):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(path, **how)
    assert str(path) in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: a table with a row of names and rows of values is expected"),
        (b"\n \n\n", "is empty"),
        (b"a,b\n", "has no rows below its first one"),
        (b"a,b\n1,2\n3\n", "bad.csv:3 has 1 fields, 2 are expected ('a', 'b'); it begins '3'"),
        (b"a,b\n1,2\n\n3,4,5\n", "bad.csv:4 has 3 fields, 2 are expected"),
        (b'a,b\n1,"x\ny"\n3,4,5\n', "bad.csv:4 has 3 fields"),
        (b"a,b,a\n1,2,3\n", "columns 1 and 3 are both called 'a'; give each its own name"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "bad.csv:3 is no row of a CSV file: the file ends inside a quoted field; perhaps"),
        (b'a,b\n1,2\n3,"4"5\n', "bad.csv:3 is no row of a CSV file: ',' expected after '\"'"),
        (b"a,b\n1,2\n3,caf\xe9\n", "bad.csv:3 is not utf-8 (byte 0xe9); name its encoding, for instance --table.encoding"),
        ("a,b\n1,2\n".encode("utf-16"), "is utf-16; name its encoding: --table.encoding utf-16"),
        (b"a,b\n1,\0\n", "is a binary file (it holds zero bytes)"),
        (b"PAR1 and then nothing", "is no Parquet file, or damaged"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_its_line(tmp_path, content, words):
    refused(tmp_path, content, words)


def test_an_unknown_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="encoding 'klingon' is not known; take for instance utf-8, latin-1"):
        read_table(tmp_path / "a.csv", encoding="klingon")


def test_a_field_of_many_megabytes_is_refused_with_its_line(tmp_path):
    content = b'a,b\n1,2\n3,"' + b"x" * 5_000_000 + b'"\n'

    refused(tmp_path, content, "bad.csv:3 is no row of a CSV file: a field is longer than 131,072 characters")


def test_a_quote_that_is_never_closed_is_named_at_its_beginning(tmp_path):
    content = b'a,b\n1,2\n3,"4\n' + b"5,6\n" * 50_000

    refused(
        tmp_path,
        content,
        "bad.csv:3 is no row of a CSV file: a field is longer than 131,072 characters; perhaps a quote",
    )


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_LINE", 1000)

    refused(
        tmp_path,
        b"a,b\n" + b"1," * 5000,
        "bad.csv:2 is longer than 1,000 characters: a file with line ends is expected",
    )


def test_a_row_of_a_hundred_thousand_fields_among_short_ones_is_refused(tmp_path):
    refused(tmp_path, b"a,b\n1,2\n" + b"7," * 99_999 + b"7\n", "bad.csv:3 has 100,000 fields, 2 are expected")


def test_a_table_of_twenty_thousand_columns_is_read(tmp_path):
    values = np.arange(60_000).reshape(3, 20_000)
    text = "\n".join(",".join(map(str, row)) for row in [[f"c{i}" for i in range(20_000)], *values.tolist()])
    (tmp_path / "wide.csv").write_text(text)
    table = read_table(tmp_path / "wide.csv")

    assert 20_000 == len(table.columns)
    assert values[:, 19_999].tolist() == table.columns[-1].values.tolist()


def test_a_file_of_which_a_quarter_is_not_there_yet_is_refused_or_shorter(tmp_path):
    whole = "a,b\n" + "".join(f'{i},"word {i % 3}"\n' for i in range(50))
    for end in range(5, len(whole), 7):
        (tmp_path / "cut.csv").write_text(whole[:end])
        table = table_or_message(tmp_path / "cut.csv")

        assert "cut.csv" in table if isinstance(table, str) else table.rows <= 50


@settings(max_examples=150)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "any.csv"
    path.write_bytes(content)
    table = table_or_message(path)

    assert str(path) in table if isinstance(table, str) else is_whole(table)


@settings(max_examples=150)
@given(text=st.text(alphabet='ab1.5-,;\t|"\n\r e', max_size=200))
def test_any_text_of_the_csv_alphabet_is_a_table_or_a_data_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "any.csv"
    path.write_text(text, newline="")
    table = table_or_message(path)

    assert str(path) in table if isinstance(table, str) else is_whole(table)


CELL = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)


@settings(max_examples=100)
@given(rows=st.lists(st.tuples(st.floats(-1e300, 1e300), CELL), min_size=2, max_size=20))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("written") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("x", "y"), *rows])
    table = read_table(path, kinds={"x": "number"}, delimiter=",", header=True)

    assert [value for value, _ in rows] == table.find("x").values.tolist()
