"""The tokenizer that learns nothing: a token is a byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.text import Document, pieces
from chainrule.data.tokenizer import byte_tokenizer, encode, encoded, end_of_text, train_tokenizer, vocabulary_of
from chainrule.errors import DataError

BYTES = byte_tokenizer()


@given(st.text(max_size=300))
def test_the_tokens_are_the_bytes_and_the_text_comes_back(text):
    assert list(text.encode()) == encoded(BYTES, text)
    assert text == BYTES.decode(encoded(BYTES, text))


def test_the_mark_comes_after_the_bytes():
    assert (256, 257) == (end_of_text(BYTES), vocabulary_of(BYTES))
    assert [[97, 98, 256, 99, 256]] == [
        row.tolist() for row in encode(BYTES, [Document("a", "ab"), Document("b", "c")])
    ]


def test_a_tokenizer_without_a_known_mark_is_refused():
    tokenizer = train_tokenizer([Document("a", "some text")], 300)
    tokenizer.add_special_tokens(["<end>"])
    whole = tokenizer.to_str().replace("<|endoftext|>", "<other>")
    with pytest.raises(DataError, match=r"the tokenizer has no end-of-text mark; one of <\|endoftext\|>, </s>"):
        end_of_text(type(tokenizer).from_str(whole))


@given(st.lists(st.sampled_from(["line\n", "\n", "  indented\n", "x", " ", "é\r"]), max_size=60), st.integers(1, 20))
def test_pieces_put_together_are_the_text_and_encode_as_the_whole(parts, at_most):
    text = "".join(parts)
    tokenizer = train_tokenizer([Document("a", "line\n\n  indented\nxx é\n" * 9)], 290)
    cut = pieces(text, at_most)

    assert text == "".join(cut)
    assert encoded(tokenizer, text) == [token for piece in cut for token in encoded(tokenizer, piece)]


def test_encoding_is_streamed_in_batches_and_long_documents_are_cut():
    long = Document("long", "some words in a line\n" * 200_000)
    rows = list(encode(BYTES, [long, Document("short", "end")]))

    assert 3 == len(rows)
    assert (long.text + "end").encode() == bytes(token for row in rows for token in row.tolist() if token < 256)
    assert [long.bytes, long.bytes + 4] == np.flatnonzero(np.concatenate(rows) == 256).tolist()
