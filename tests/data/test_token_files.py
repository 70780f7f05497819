"""Files of token ids: read without costing memory; what is damaged, truncated or of another kind is refused by name."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.token_file import TokenFile, id_type, open_ids, write_ids
from chainrule.data.windows import Windows
from chainrule.errors import DataError

MEGABYTES = 200
# A process that trains on windows from all over a file; prints how many MB its resident memory grew.
READER = f"""
import resource, sys
from pathlib import Path
import numpy as np, torch
from chainrule.data.token_file import TokenFile
from chainrule.data.windows import Windows
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
windows = Windows(TokenFile(Path(sys.argv[1]), np.dtype(np.uint16), {MEGABYTES} * 500_000), 128)
windows.batch(np.arange(8), torch.device("cpu"))
before = resident()
for start in range(0, len(windows) - 64, len(windows) // 500):
    windows.batch(np.arange(start, start + 64), torch.device("cpu"))
print(resident() - before)
"""


def write(path, ids, dtype=np.uint16):
    with path.open("w+b") as file:
        write_ids(file, [np.array(ids)], np.dtype(dtype))
    return path


@given(st.lists(st.lists(st.integers(0, 65535), max_size=9), max_size=5), st.data())
def test_what_is_written_row_by_row_is_read_in_any_slice(rows, data):
    with tempfile.TemporaryFile() as file:
        ids = write_ids(file, [np.array(row, np.int64) for row in rows], np.dtype(np.uint16))
        whole = [number for row in rows for number in row]
        if whole:
            start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))

            assert whole[start:stop] == ids[start:stop].tolist()
            assert whole == ids.part(0, len(whole))[:].tolist()
        assert len(whole) == len(ids)


def test_a_part_of_a_file_is_read_from_its_place(tmp_path):
    ids = TokenFile(write(tmp_path / "a.bin", range(100)), np.dtype(np.uint16), 100)

    assert list(range(40, 60)) == ids.part(40, 60)[:].tolist()
    assert [45, 41] == ids.part(40, 60).part(1, 9)[np.array([4, 0])].tolist()


def test_windows_of_a_file_are_those_of_an_array(tmp_path):
    ids, places = np.arange(100) % 17, np.array([3, 0, 11])
    file = TokenFile(write(tmp_path / "a.bin", ids), np.dtype(np.uint16), 100)

    assert Windows(ids.astype(np.int32), 8).rows(places).tolist() == Windows(file, 8).rows(places).tolist()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this system does not tell resident memory in /proc")
def test_a_file_of_two_hundred_megabytes_costs_no_resident_memory(tmp_path):
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(MEGABYTES * 1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path / "big.bin")], capture_output=True, text=True, check=True
    )

    assert float(done.stdout) < 20  # 0.3 MB; a map that is kept grows by 41 MB here


def test_the_ids_of_a_vocabulary_fit_its_type():
    assert ["<u2", "<u2", "<u4"] == [id_type(vocabulary).str for vocabulary in (257, 2**16, 2**16 + 1)]


def test_a_users_npy_and_raw_files_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9, dtype=np.int64))
    write(tmp_path / "a.bin", range(9))

    assert list(range(9)) == open_ids(tmp_path / "a.npy", 9)[:].tolist()
    assert list(range(9)) == open_ids(tmp_path / "a.bin", 9)[:].tolist()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.bin", b"", "is empty: token ids are expected"),
        ("a.bin", b"\1\0\2", "is 3 bytes long: no whole number of ids of 2 bytes each"),
        ("a.bin", b"\1\0\x09\1\2\0", "holds the id 265 at place 1; the tokenizer knows 257 tokens"),
        ("a.npy", b"\x93NUMPY", "its .npy header cannot be read"),
        ("a.npy", b"\x93NUMPY\1\0\5\0{'a':", "its .npy header cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        open_ids(tmp_path / name, 257)

    assert str(tmp_path / name) in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3), np.uint16), r"holds uint16 of shape \(2, 3\); one row of integers is expected"),
        (np.zeros(3, np.float32), r"holds float32 of shape \(3,\); one row of integers is expected"),
        (np.array([1, -1]), "holds the id -1 at place 1"),
        (np.zeros(0, np.uint16), "is empty"),
    ],
)
def test_an_array_that_is_no_row_of_ids_is_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=words):
        open_ids(tmp_path / "a.npy", 257)


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(1000, np.uint16))
    os.truncate(tmp_path / "a.npy", 1128)
    with pytest.raises(DataError, match=r"a.npy is truncated: it announces 1,000 ids and is 1,128 bytes long"):
        open_ids(tmp_path / "a.npy", 257)
    with pytest.raises(DataError, match=r"b.npy cannot be read: No such file"):
        open_ids(tmp_path / "b.npy", 257)
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        open_ids(tmp_path, 257)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused_in_words(tmp_path_factory, content, npy):
    path = tmp_path_factory.mktemp("ids") / "a"
    path.write_bytes(b"\x93NUMPY" * npy + content)
    try:
        largest, refused = open_ids(path, 300)[:].max(), ""
    except DataError as error:
        largest, refused = 0, str(error)

    assert largest < 300
    assert not refused or str(path) in refused
