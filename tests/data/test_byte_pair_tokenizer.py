"""Text to tokens and back, without loss, learned from the training files alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.text import Document
from chainrule.data.tokenizer import END_OF_TEXT, encode, fingerprint, load_tokenizer, train_tokenizer
from chainrule.errors import DataError

TEXT = "def spam(eggs):\n    return eggs + eggs\n" * 20
TOKENIZER = train_tokenizer([Document("a", TEXT)], 300)


def encoded_row(tokenizer, documents):
    return np.concatenate(list(encode(tokenizer, documents)))


@given(st.text(max_size=200))
def test_any_text_comes_back_as_it_was(text):
    tokens = encoded_row(TOKENIZER, [Document("x", text)])

    assert text == TOKENIZER.decode(tokens[:-1].tolist())


def test_each_document_ends_with_the_mark():
    end = TOKENIZER.token_to_id(END_OF_TEXT)
    tokens = encoded_row(TOKENIZER, [Document("a", "spam"), Document("b", "eggs")])

    assert end == tokens[-1]
    assert 2 == (tokens == end).sum()


def test_the_letters_of_the_mark_in_a_text_are_letters():
    tokens = encoded_row(TOKENIZER, [Document("a", f"spam{END_OF_TEXT}eggs")])

    assert 1 == (tokens == TOKENIZER.token_to_id(END_OF_TEXT)).sum()


def test_frequent_words_become_one_token_and_the_vocabulary_is_kept():
    assert 1 == len(TOKENIZER.encode(" eggs").ids)
    assert TOKENIZER.get_vocab_size() <= 300


def test_learning_again_gives_the_same_tokenizer():
    assert fingerprint(TOKENIZER) == fingerprint(train_tokenizer([Document("b", TEXT)], 300))
    assert fingerprint(TOKENIZER) != fingerprint(train_tokenizer([Document("b", TEXT)], 260))


def test_a_saved_tokenizer_is_the_same_and_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(TOKENIZER.to_str())
    assert fingerprint(TOKENIZER) == fingerprint(load_tokenizer(path))

    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as a tokenizer"):
        load_tokenizer(path)
