"""Training and validation are different files, and stay so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.split import limit, place, split
from chainrule.data.text import Document
from chainrule.errors import DataError


def documents(count, size=10):
    return [Document(f"file{number}.txt", f"{number:0{size}d}") for number in range(count)]


@given(st.integers(2, 200), st.floats(0.01, 0.99))
def test_each_file_is_on_exactly_one_side_and_no_side_is_empty(count, fraction):
    sides = split(documents(count), fraction)

    assert sides.training
    assert sides.validation
    assert sorted(documents(count), key=str) == sorted(sides.training + sides.validation, key=str)


def test_the_share_of_validation_files_is_about_the_fraction():
    assert 100 == pytest.approx(len(split(documents(1000), 0.1).validation), abs=30)


def test_a_file_keeps_its_side_when_others_come_or_go():
    few, many = split(documents(100), 0.1), split(documents(300), 0.1)

    assert set(few.validation) <= set(many.validation)
    assert set(few.training) <= set(many.training)


def test_the_hash_depends_on_the_path_alone_and_is_pinned():
    assert 0.23117427244379962 == pytest.approx(place("json/decoder.py"))


def test_a_single_file_is_cut_at_a_line_end():
    text = "".join(f"line {number}\n" for number in range(100))
    sides = split([Document("a.txt", text)], 0.1)

    assert text == sides.training[0].text + sides.validation[0].text
    assert sides.training[0].text.endswith("\n")
    assert 0.1 == pytest.approx(len(sides.validation[0].text) / len(text), abs=0.02)
    assert "the last 10% of the only file" == sides.rule


def test_a_single_file_that_is_too_short_to_cut_is_refused():
    with pytest.raises(DataError, match="too little to split"):
        split([Document("a.txt", "x")], 0.1)


def test_a_limit_keeps_whole_files_in_their_order():
    kept = limit(documents(100, size=10), 250)

    assert 25 == len(kept)
    assert [document for document in documents(100) if document in kept] == list(kept)
