"""Parquet files: their types become kinds; what is no number, date or word is left out."""

import datetime
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest

from chainrule.data.tables.read import read_table
from chainrule.errors import DataError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def written(tmp_path):
    def write(columns, **how):
        parquet.write_table(pa.table(columns), tmp_path / "t.parquet", **how)
        return tmp_path / "t.parquet"

    return write


def test_types_become_kinds(written):
    day = datetime.datetime(2024, 2, 29, 12)
    table = read_table(
        written(
            {
                "whole": [1, None, 3],
                "real": [0.5, float("inf"), float("nan")],
                "decimal": [Decimal("1.25"), None, Decimal("2.50")],
                "truth": [True, None, False],
                "day": [day, None, day],
                "word": ["red", None, "NA"],
                "coded": pa.array(["a", "b", "a"]).dictionary_encode(),
            }
        )
    )
    kinds = {column.name: column.kind for column in table.columns}

    assert {
        "whole": "number",
        "real": "number",
        "decimal": "number",
        "truth": "boolean",
        "day": "date",
        "word": "category",
        "coded": "category",
    } == kinds
    np.testing.assert_equal([1, np.nan, 3], table.find("whole").values)
    np.testing.assert_equal([0.5, np.nan, np.nan], table.find("real").values)
    np.testing.assert_equal([1.25, np.nan, 2.5], table.find("decimal").values)
    np.testing.assert_equal([1, np.nan, 0], table.find("truth").values)
    np.testing.assert_equal([19782.5, np.nan, 19782.5], table.find("day").values)
    assert [0, -1, -1] == table.find("word").codes.tolist()
    assert [0, 1, 0] == table.find("coded").codes.tolist()


def test_nested_and_empty_columns_are_left_out_with_the_reason(written):
    table = read_table(written({"x": [1, 2], "list": [[1], [2]], "none": pa.nulls(2)}))

    assert (
        ("list", "its type is list<element: int64>: no number, date or word"),
        ("none", "every cell is missing"),
    ) == table.dropped


def test_a_column_that_training_had_is_kept_when_all_its_cells_are_missing(written):
    table = read_table(written({"x": [1, 2], "y": pa.nulls(2, pa.float64())}), kinds={"y": "number"})

    assert table.find("y").missing.all()


def test_a_file_that_is_cut_off_is_refused(written):
    path = written({"x": list(range(1000))})
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match=r"t\.parquet is no Parquet file, or damaged: "):
        read_table(path)


def test_every_damaged_byte_is_a_table_or_a_data_error(written):
    path = written({"x": [1.0, 2.0, 3.0], "w": ["a", "b", "a"]})
    whole, said = path.read_bytes(), []
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            table = read_table(path)
        except DataError as error:
            said.append(str(path) in str(error))
        else:
            said.append(all(len(column.missing) == table.rows for column in table.columns))

    assert all(said)
    assert len(said) > 20


def test_a_file_without_rows_is_refused(written):
    with pytest.raises(DataError, match=r"t\.parquet has no rows"):
        read_table(written({"x": pa.array([], pa.int64())}))


def test_without_pyarrow_the_extra_is_named(written):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\nfrom chainrule.data.tables.read import read_table\n"
        "from chainrule.errors import DataError\n"
        "try:\n    read_table(Path(sys.argv[1]))\nexcept DataError as error:\n    print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(written({"x": [1]}))], capture_output=True, text=True, check=True
    ).stdout

    assert "reading Parquet needs pyarrow, which is not installed: pip install 'chainrule[parquet]'\n" == said
