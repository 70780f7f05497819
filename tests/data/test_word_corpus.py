"""A text as numbers of words on disk, cut into jobs."""

import numpy as np
import pytest

from chainrule.data.vocabulary import make_vocabulary
from chainrule.data.word_corpus import JOB_WORDS, in_memory, open_corpus, write_corpus
from chainrule.data.words import Rule, count_words
from chainrule.errors import DataError


def corpus_of(tmp_path, text, min_count=1):
    (tmp_path / "text").write_text(text, encoding="utf-8")
    texts = [tmp_path / "text"]
    vocabulary = make_vocabulary(count_words(texts, Rule()), min_count)
    return texts, vocabulary


def test_words_become_numbers_and_a_sentence_ends_with_minus_one(tmp_path):
    texts, vocabulary = corpus_of(tmp_path, "a b a\nc a b\n")

    assert [0, 1, 0, -1, 2, 0, 1, -1, -1] == in_memory(texts, Rule(), vocabulary).tokens.tolist()


def test_rare_words_are_left_out_but_counted_as_words_of_the_text(tmp_path):
    texts, vocabulary = corpus_of(tmp_path, "a b a rare\nb a b", min_count=2)
    corpus = in_memory(texts, Rule(), vocabulary)

    assert [0, 1, 0, -1, 1, 0, 1, -1] == corpus.tokens.tolist()
    assert [7] == corpus.words.tolist()


@pytest.mark.parametrize("words_a_line", [7, 900, 50_000])
def test_jobs_hold_whole_sentences_of_about_ten_thousand_words_and_long_sentences_are_cut(tmp_path, words_a_line):
    line = " ".join(f"w{number % 97}" for number in range(words_a_line))
    texts, vocabulary = corpus_of(tmp_path, (line + "\n") * (100_000 // words_a_line))
    corpus = in_memory(texts, Rule(), vocabulary)

    assert 100_000 // words_a_line * words_a_line == corpus.words.sum()
    assert all(JOB_WORDS <= words <= 2 * JOB_WORDS for words in corpus.words[:-1])
    if words_a_line < JOB_WORDS:
        assert all(-1 == corpus.job(number)[-1] for number in range(len(corpus)))


@pytest.mark.parametrize("size", [1000, 77_777, 4_000_000])
def test_the_corpus_on_disk_is_the_one_in_memory_whatever_the_size_of_the_blocks(tmp_path, size):
    texts, vocabulary = corpus_of(tmp_path, "\n".join(f"a{n % 13} b{n % 101} c c" for n in range(20_000)))
    memory = in_memory(texts, Rule(), vocabulary)

    disk = open_corpus(tmp_path / "row", *write_corpus(tmp_path / "row", texts, Rule(), vocabulary, size))

    assert np.array_equal(memory.tokens, disk.tokens)
    assert np.array_equal(memory.starts, disk.starts)
    assert np.array_equal(memory.words, disk.words)


def test_a_row_that_was_cut_is_refused(tmp_path):
    texts, vocabulary = corpus_of(tmp_path, "a b a b")
    jobs = write_corpus(tmp_path / "row", texts, Rule(), vocabulary)
    (tmp_path / "row").write_bytes((tmp_path / "row").read_bytes()[:-4])

    with pytest.raises(DataError, match=r"row holds 16 bytes, its jobs 20: it was cut or changed"):
        open_corpus(tmp_path / "row", *jobs)
