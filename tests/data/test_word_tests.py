"""Judged pairs and analogies: the figures are gensim's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.data.word_tests import Score, evaluate, spearman
from chainrule.data.word_vectors import WordVectors
from chainrule.errors import DataError

LETTERS = WordVectors(tuple("abcdef"), np.random.default_rng(3).standard_normal((6, 4), np.float32))


def write(tmp_path, text):
    (tmp_path / "test.txt").write_text(text, encoding="utf-8")
    return tmp_path / "test.txt"


def test_pairs_are_ranked_by_cosine_and_unknown_words_are_counted(tmp_path):
    vectors = WordVectors(("king", "queen", "stone"), np.array([(1, 0), (0.9, 0.1), (0, 1)], np.float32))
    file = write(tmp_path, "# a comment\nKing\tqueen\t9\nking\tstone\t1\nqueen\tstone\t2\nking\tzebra\t5\n")

    assert Score("test.txt", "pairs", 1.0, 3, 4) == evaluate(vectors, file)


def test_the_share_of_right_analogies_is_measured(tmp_path):
    vectors = WordVectors(
        ("man", "woman", "king", "queen", "stone"),
        np.array([(1, 0, 1), (0, 1, 1), (1, 0, 3), (0, 1, 3), (1, 1, -9)], np.float32),
    )
    file = write(tmp_path, ": family\nMan woman King queen\nman woman king stone\nman woman boy girl\n")

    assert Score("test.txt", "analogies", 0.5, 2, 3) == evaluate(vectors, file)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=30))
def test_the_rank_correlation_is_scipys(pairs):
    stats = pytest.importorskip("scipy.stats", reason="needs the [words] extra (gensim brings scipy)")
    a, b = np.array(pairs, float).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert stats.spearmanr(a, b).statistic == pytest.approx(spearman(a, b))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the vectors know 0 of its 0 pairs; two are needed to rank them"),
        ("a\tb\t1\n", "the vectors know 1 of its 1 pairs; two are needed to rank them"),
        ("a b\n", r'"word word judgement" is expected, got \'a b\''),
        (": x\na b c\n", r'"a b c d" is expected, got \'A B C\''),
        (": x\na b c z\n", "the vectors know none of its 1 questions"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        evaluate(LETTERS, write(tmp_path, text))


def test_the_figures_are_gensims(tmp_path):
    models = pytest.importorskip("gensim.models", reason="needs the [words] extra (gensim)")
    utils = pytest.importorskip("gensim.test.utils")
    generator = np.random.default_rng(1)
    words = set()
    for name in ("wordsim353.tsv", "simlex999.txt"):
        with open(utils.datapath(name), encoding="utf-8") as file:
            words |= {word for line in file if line[0] != "#" for word in line.split("\t")[:2]}
    with open(utils.datapath("questions-words.txt"), encoding="utf-8") as file:
        words |= {word.lower() for line in list(file)[8000:9000] for word in line.split() if line[0] != ":"}
    ordered = sorted(words)
    vectors = WordVectors(tuple(ordered), generator.standard_normal((len(ordered), 8), np.float32))
    theirs = models.KeyedVectors(8)
    theirs.add_vectors(ordered, vectors.vectors)

    for name in ("wordsim353.tsv", "simlex999.txt"):
        path = utils.datapath(name)
        assert theirs.evaluate_word_pairs(path)[1][0] == pytest.approx(evaluate(vectors, _path(path)).figure)
    path = utils.datapath("questions-words.txt")
    assert theirs.evaluate_word_analogies(path)[0] == pytest.approx(evaluate(vectors, _path(path)).figure)


def _path(text):
    from pathlib import Path

    return Path(text)
