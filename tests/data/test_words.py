"""Text files to words, block by block."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.data.words import END, Rule, blocks, count_words, sentence_of, sentences_in, words_of
from chainrule.errors import DataError

TEXT = st.text(alphabet="ab'é \n\t-.", max_size=200)


def test_words_are_letters_digits_and_apostrophes_inside():
    assert ["don't", "stop", "42", "naïve", "o’clock"] == words_of("“Don't” stop—42 'naïve' o’clock", Rule())


def test_words_may_be_whatever_stands_between_spaces_as_it_is():
    assert ["Don't", "stop-42."] == words_of("Don't  stop-42.", Rule(split="spaces", lowercase=False))


def test_a_line_is_a_sentence():
    assert ["a", "b", END, "c"] == words_of("a b\nc", Rule())


def test_a_paragraph_may_be_a_sentence():
    assert ["a", "b", END, "c"] == words_of("a\nb\n \n\n c", Rule(sentence="paragraph"))


@settings(max_examples=50)
@given(TEXT, st.integers(1, 50), st.sampled_from(["line", "paragraph"]))
def test_what_is_read_does_not_depend_on_the_size_of_the_blocks(tmp_path_factory, text, size, sentence):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text(text, encoding="utf-8")
    rule = Rule(sentence=sentence)

    whole = [word for block in sentences_in([path], rule) for word in block]

    assert whole == [word for block in sentences_in([path], rule, size) for word in block]


@pytest.mark.parametrize(
    ("text", "sentence", "reason"),
    [
        ("one\ntwo\n" * 30, "line", "auto: 0 of the first 60 lines are blank"),
        ("one\ntwo\n\n" * 30, "paragraph", "auto: 29 of the first 89 lines are blank"),
    ],
)
def test_a_text_with_blank_lines_has_paragraphs(tmp_path, text, sentence, reason):
    (tmp_path / "text").write_text(text, encoding="utf-8")

    found, why = sentence_of([tmp_path / "text"])

    assert sentence == found
    assert why.startswith(reason)


def test_a_block_is_not_much_larger_than_asked_for(tmp_path):
    (tmp_path / "text").write_text("word " * 1000, encoding="utf-8")

    assert 110 >= max(map(len, blocks(tmp_path / "text", 100)))


def test_words_of_all_files_are_counted_and_a_window_crosses_no_file(tmp_path):
    for name, text in (("a", "x y x"), ("b", "x z")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [tmp_path / "a", tmp_path / "b"]

    assert {"x": 3, "y": 1, "z": 1} == count_words(files, Rule())
    assert ["x", "y", "x", END, "x", "z", END] == [word for block in sentences_in(files, Rule()) for word in block]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 au lait", r"is not utf-8 \(byte 0xe9 at 3\): text in utf-8 is expected"),
        (b"a b\0", r"is a binary file \(it holds a zero byte at 3\): text is expected"),
        (b"", "no words in .*: text is expected"),
        (b" -- \n", "no words in .*: text is expected"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)

    with pytest.raises(DataError, match=message):
        count_words([tmp_path / "text"], Rule())


def test_the_place_of_a_wrong_byte_counts_from_the_start_of_the_file(tmp_path):
    (tmp_path / "text").write_bytes(b"word " * 100 + b"\xff")

    with pytest.raises(DataError, match=r"byte 0xff at 500"):
        list(blocks(tmp_path / "text", 64))


def test_a_file_without_white_space_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("chainrule.data.words.LONGEST_WORD", 100)
    (tmp_path / "text").write_text("x" * 300, encoding="utf-8")

    with pytest.raises(DataError, match=r"has no white space in 150 bytes: text is expected"):
        list(blocks(tmp_path / "text", 50))


def test_a_missing_file_is_refused():
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file or directory"):
        list(blocks(Path("nowhere")))


def test_a_byte_order_mark_is_no_letter(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfword")

    assert {"word": 1} == count_words([tmp_path / "text"], Rule())
