"""Files and folders to documents; what is unusable is refused or counted."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.text import library_files, read_text, standard_library, text_files
from chainrule.errors import DataError


def utf_16(text):
    return text.encode("utf-16")


def test_the_standard_library_is_read_without_its_tests_and_installed_packages():
    corpus = standard_library()
    paths = [document.path for document in corpus.documents]

    assert {"argparse.py", "json/decoder.py"} <= set(paths)
    assert not [path for path in paths if "site-packages" in path or "/test" in path or path.startswith("test")]
    assert len(paths) > 200
    assert sum(document.bytes for document in corpus.documents) > 3_000_000


def test_the_standard_library_is_read_in_the_same_order_each_time():
    assert standard_library() == standard_library()


def test_a_folder_is_read_in_sorted_order_and_what_is_no_text_is_counted(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("two\r\nlines\n", newline="")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "image.bin").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "nothing.txt").write_text("  \n")
    (tmp_path / ".hidden").write_text("hidden")
    corpus = read_text([tmp_path])

    assert [("a.txt", "one"), ("b/two.txt", "two\nlines\n")] == [(d.path, d.text) for d in corpus.documents]
    assert (("binary", 1), ("empty", 1), ("not utf-8", 1)) == corpus.left_out


def test_a_file_named_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("one")

    assert 1 == len(read_text([tmp_path, tmp_path / "a.txt"]).documents)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: text in utf-8 is expected"),
        (b"ab\0cd", "is a binary file"),
        (b"caf\xe9", "is not utf-8 (byte 0xe9 at 3)"),
    ],
)
def test_a_named_file_that_is_no_text_is_refused_by_name(tmp_path, content, words):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_text([tmp_path / "bad.txt"])

    assert str(tmp_path / "bad.txt") in str(refused.value)
    assert words in str(refused.value)


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist: --text takes files and folders"):
        read_text([tmp_path / "no.txt"])


def test_a_folder_without_text_says_what_it_holds(tmp_path):
    (tmp_path / "image.bin").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"no text in .*: 1 binary"):
        read_text([tmp_path])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_text([tmp_path])


@given(st.one_of(st.binary(max_size=80), st.text(max_size=40).map(str.encode), st.text(max_size=40).map(utf_16)))
def test_any_file_is_its_text_or_is_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "any.txt"
    path.write_bytes(content)
    try:
        text, refused = read_text([path]).documents[0].text, ""
    except DataError as error:
        text, refused = "", str(error)

    assert str(path) in refused or content.decode("utf-8-sig").replace("\r\n", "\n") == text


def test_a_file_is_read_when_its_text_is_asked_for_and_not_kept(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    document = read_text([tmp_path]).documents[0]
    (tmp_path / "a.txt").write_text("two")

    assert "two" == document.text


def test_a_file_that_is_no_text_any_more_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    document = read_text([tmp_path]).documents[0]
    (tmp_path / "a.txt").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"a.txt is a binary file .*: it was text when it was first read"):
        document.text  # noqa: B018
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a.txt cannot be read: No such file"):
        document.text  # noqa: B018


def test_files_that_are_only_begun_are_those_that_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 10_000)  # 8,192 bytes are looked at; the last of them is half a letter
    (tmp_path / "b.txt").write_text("x" + "é" * 10_000)
    (tmp_path / "image.bin").write_bytes(b"x" * 99 + b"\0" + b"x" * 9_999)
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1") * 9_999)
    (tmp_path / "nothing.txt").write_text("")

    assert ([tmp_path / "a.txt", tmp_path / "b.txt"], 3) == text_files([tmp_path])
    assert [document.source for document in read_text([tmp_path]).documents] == text_files([tmp_path])[0]
    assert [document.source for document in standard_library().documents] == library_files()


def test_a_named_file_that_begins_as_no_text_is_refused(tmp_path):
    (tmp_path / "image.bin").write_bytes(b"x" * 99 + b"\0" + b"x" * 9_999)
    with pytest.raises(DataError, match=r"image.bin is a binary file .*: text in utf-8 is expected"):
        text_files([tmp_path / "image.bin"])
