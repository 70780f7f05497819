"""`chainrule vectors`: nearest words, analogies, tests of vectors."""

import numpy as np
import pytest

from chainrule.cli import MISUSE, run
from chainrule.data.word_vectors import WordVectors, save_binary


@pytest.fixture
def folder(tmp_path):
    """A run's folder, as far as this command reads it."""
    words = ("man", "woman", "king", "queen", "stone")
    points = np.array([(1, 0, 1), (0, 1, 1), (1, 0, 3), (0, 1, 3), (1, 1, -9)], np.float32)
    save_binary(tmp_path / "vectors.bin", WordVectors(words, points))
    return tmp_path


def test_the_nearest_words_are_printed_with_their_cosine(folder, capsys):
    assert 0 == run(["vectors", str(folder), "similar", "king", "--count", "2"])

    assert " 0.900  queen\n 0.894  man\n" == capsys.readouterr().out


def test_several_words_may_be_asked_for(folder, capsys):
    assert 0 == run(["vectors", str(folder / "vectors.bin"), "similar", "king", "man", "--count", "1"])

    assert "king\n 0.900  queen\n\nman\n 0.894  king\n" == capsys.readouterr().out


def test_an_analogy_is_answered(folder, capsys):
    assert 0 == run(["vectors", str(folder), "analogy", "man", "woman", "king", "--count", "1"])

    assert capsys.readouterr().out.endswith("queen\n")


def test_test_files_are_measured(folder, capsys):
    (folder / "pairs.tsv").write_text("king\tqueen\t9\nking\tstone\t1\nman\twoman\t5\n", encoding="utf-8")

    assert 0 == run(["vectors", str(folder), "evaluate", str(folder / "pairs.tsv")])
    assert "pairs.tsv: 1.0000 Spearman's rank correlation, 3 of 3 pairs known\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similar", "kin"], "'kin' is none of the 5 words; did you mean 'king'?"),
        (["similar", "womna"], "'womna' is none of the 5 words; did you mean 'woman'?"),
        (["analogy", "man", "king"], "analogy takes three words, got 2: A B C, for instance man king woman"),
        (["evaluate", "nowhere.tsv"], "nowhere.tsv cannot be read: No such file or directory"),
    ],
)
def test_misuse_is_said_in_one_line(folder, capsys, arguments, message):
    assert MISUSE == run(["vectors", str(folder), *arguments])

    assert f"chainrule: {message}\n" == capsys.readouterr().err


def test_a_folder_without_vectors_is_refused(tmp_path, capsys):
    assert MISUSE == run(["vectors", str(tmp_path), "similar", "king"])

    assert "it is no run of task words, or its training has not ended" in capsys.readouterr().err
