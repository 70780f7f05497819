"""A packed window numbers its documents; the mark ends one as a target and begins the next as an input."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.windows import Windows

END = 9


def test_the_last_target_of_a_document_is_the_mark_and_the_next_begins_with_it():
    windows = Windows(np.array([1, 2, END, 3, END, 4, 5, 6, 7], np.int32), 4, END)
    batch = windows.batch(np.array([0, 1]), torch.device("cpu"))

    assert [[1, 2, END, 3], [END, 4, 5, 6]] == batch["tokens"].tolist()
    assert [[2, END, 3, END], [4, 5, 6, 7]] == batch["targets"].tolist()
    assert [[0, 0, 1, 1], [1, 1, 1, 1]] == batch["documents"].tolist()


def test_windows_that_are_not_packed_tell_no_documents():
    assert {"tokens", "targets"} == set(Windows(np.arange(9), 4).batch(np.array([0]), torch.device("cpu")))


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=8), st.integers(2, 7))
def test_two_tokens_are_of_one_document_unless_a_mark_lies_between(documents, context):
    row = np.array([token for document in documents for token in [*document, END]] * 3, np.int32)
    windows = Windows(row, context, END)
    batch = windows.batch(np.arange(len(windows)), torch.device("cpu"))
    for tokens, numbers in zip(batch["tokens"].tolist(), batch["documents"].tolist(), strict=True):
        for place in range(1, context):
            assert (tokens[place] == END) == (numbers[place] != numbers[place - 1])
