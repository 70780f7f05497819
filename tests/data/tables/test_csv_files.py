"""CSV files as people write them: delimiter, header, kinds of columns, missing cells."""

import math

import numpy as np
import pytest

from chainrule.data.tables.csv_rows import sniff
from chainrule.data.tables.read import read_table
from chainrule.errors import DataError


@pytest.fixture
def table(tmp_path):
    """Write a text as a file and read it."""

    def read(text, **how):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(how.get("encoding", "utf-8")))
        return read_table(path, **how)

    return read


def column(table, name):
    return table.find(name)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(table, mark):
    assert ["age", "name"] == table(f"age{mark}name\n31{mark}Ann Bo\n42{mark}Eve\n").names


@pytest.mark.parametrize(("mark", "inside"), [(";", "1,5"), ("\t", "Smith, A"), (",", "a;b"), ("|", "x, y; z")])
def test_another_delimiter_inside_the_cells_is_part_of_them(table, mark, inside):
    assert ["a", "b"] == table(f"a{mark}b\n" + f"{inside}{mark}{inside}\n" * 30).names


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_quoted_delimiters_quotes_and_line_ends_belong_to_the_cell(table, mark):
    read = table(f'age{mark}name\n31{mark}"a{mark}b ""c""\nd"\n42{mark}e\n')

    assert (f'a{mark}b "c"\nd', "e") == column(read, "name").labels


def test_a_first_row_with_a_number_is_no_header(table):
    read = table("1.5,red\n2.5,blue\n")

    assert ["column 1", "column 2"] == read.names
    assert 2 == read.rows


def test_a_header_can_be_asked_for_and_refused(table):
    assert ["1", "2"] == table("1,2\n3,4\n5,6\n", header=True).names
    assert 3 == table("a,b\nc,d\ne,f\n", header=False).rows


def test_a_name_that_is_empty_is_named_by_its_place(table):
    assert ["column 1", "x"] == table(",x\n0,5\n1,6\n").names


def test_kinds_are_found_out(table):
    read = table(
        "number,truth,day,word\n1,yes,2024-02-29,red\n-2e3,no,2024-03-01T12:00:00,blue\n.5,YES,1969-12-31,red\n",
    )

    assert ["number", "boolean", "date", "category"] == [one.kind for one in read.columns]
    assert [1, -2000, 0.5] == column(read, "number").values.tolist()
    assert [1, 0, 1] == column(read, "truth").values.tolist()
    assert [19782, 19783.5, -1] == column(read, "day").values.tolist()
    assert [0, 1, 0] == column(read, "word").codes.tolist()


def test_dates_are_told_as_a_remark(table):
    assert (
        "'day': ISO 8601 dates, taken as days since 1970-01-01" in table("day,x\n2024-01-01,1\n2024-01-02,2\n").remarks
    )


@pytest.mark.parametrize("word", ["", "NA", "n/a", "NaN", "null", "None", "?", " ", "-"])
def test_words_for_missing_cells_are_missing_in_numbers_and_in_categories(table, word):
    read = table(f"x,y,word\n1,0,red\n{word},0,{word}\n3,0,red\n")

    assert [False, True, False] == column(read, "x").missing.tolist()
    assert [0, -1, 0] == column(read, "word").codes.tolist()


def test_infinity_is_missing_and_its_line_is_told(table):
    read = table("x,y\n" + "1,2\n" * 30 + "inf,2\n-1e999,3\n")

    assert 2 == int(column(read, "x").missing.sum())
    assert (
        "'x': 2 of 32 cells are no finite number and taken as missing, the first is 'inf' (table.csv:32)"
        in read.remarks
    )


def test_a_few_words_among_numbers_are_missing_and_told(table):
    read = table("x\n" + "1\n2\n" * 20 + "unknown\n")

    assert "number" == column(read, "x").kind
    assert (
        "'x': 1 of 41 cells are no finite number and taken as missing, the first is 'unknown' (table.csv:42)"
        in read.remarks
    )


def test_many_words_among_numbers_make_categories(table):
    assert ("1", "2", "many") == column(table("x\n" + "1\n2\nmany\n" * 9), "x").labels


def test_a_column_is_read_as_it_is_told(table):
    read = table("zip,x\n01234,1\n99999,2\n01234,3\n", kinds={"zip": "category"})

    assert ("01234", "99999") == column(read, "zip").labels


def test_a_decimal_comma_is_read_where_semicolons_delimit(table):
    assert [1.5, -2.25] == column(table("x;y\n1,5;a\n-2,25;b\n"), "x").values.tolist()
    assert ("1,5", "2,5") == column(table('x,y\n"1,5",a\n"2,5",b\n'), "x").labels


def test_python_s_underscored_numbers_are_words(table):
    assert "category" == column(table("x\n1_000\n2_000\n1_000\n"), "x").kind


def test_a_column_that_is_all_missing_is_left_out(table):
    assert (("empty", "every cell is missing"),) == table("x,empty\n1,\n2,NA\n").dropped


def test_blank_lines_and_a_byte_order_mark_are_ignored(table):
    read = table("\ufeffx,y\r\n\r\n1,2\r\n  \r\n3,4\r\n\r\n")

    assert (["x", "y"], 2) == (read.names, read.rows)


def test_another_encoding_is_read_when_it_is_named(table):
    for encoding in ("latin-1", "utf-16"):
        assert ("café",) == column(table("x,word\n1,café\n", encoding=encoding), "word").labels


def test_a_single_column_is_a_table(table):
    assert [1, 2] == column(table("x\n1\n2\n"), "x").values.tolist()


def test_a_long_file_is_read_in_blocks_as_a_whole(table):
    rows = 40_000
    read = table("a,b\n" + "".join(f"{i},{'xyz'[i % 3]}\n" for i in range(rows)))

    assert (np.arange(rows) == column(read, "a").values).all()
    assert (np.arange(rows) % 3 == column(read, "b").codes).all()


def test_what_was_found_out_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("a\tb\n1\t2\n")

    assert "delimited by tabs, names in the first row" == str(sniff(tmp_path / "t.csv"))


def test_more_different_words_than_can_be_kept_are_left_out(table):
    read = table("x,text\n" + "".join(f"{i},word{i}\n" for i in range(10_050)))

    assert (("text", "more than 10,000 different words: an identifier or free text"),) == read.dropped


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist: a CSV or Parquet file is expected"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"is a folder: a CSV or Parquet file is expected"):
        read_table(tmp_path)


def test_missing_numbers_are_nan(table):
    assert math.isnan(column(table("x,y\n1,1\n,1\n"), "x").values[1])
