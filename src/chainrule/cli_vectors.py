"""The command `vectors`: asks word vectors for the nearest words, for analogies, and measures them on test files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from chainrule.errors import DataError


def vectors(
    source: Path,
    question: Literal["similar", "analogy", "evaluate"],
    about: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    count: int = 10,
) -> None:
    """Ask word vectors: `similar WORD...`, `analogy A B C` (A is to B as C is to ...), `evaluate FILE...`.

    Parameters
    ----------
    source
        A run of task words, or a file in word2vec's text or binary format.
    question
        Nearest words by cosine; the words nearest to B - A + C; or the score on files of judged pairs (WordSim-353,
        SimLex-999) or of analogies.
    about
        Words or files.
    count
        Words to show.
    """
    from chainrule.data.word_tests import evaluate
    from chainrule.data.word_vectors import load_vectors

    if question == "analogy" and len(about) != 3:
        raise DataError(f"analogy takes three words, got {len(about)}: A B C, for instance man king woman")
    loaded = load_vectors(vectors_file(source))
    if question == "evaluate":
        for file in about:
            print(f"{Path(file).name}: {evaluate(loaded, Path(file))}")
    elif question == "analogy":
        a, b, c = about
        _show(loaded.analogy(a, b, c, count))
    else:
        for place, word in enumerate(about):
            if len(about) > 1:
                print(f"{chr(10) if place else ''}{word}")
            _show(loaded.similar(word, count))


def vectors_file(path: Path) -> Path:
    """The vectors of a run, or the file itself. Raises DataError if a run has none."""
    from chainrule.train.words.vectors import BINARY

    if path.is_dir() and not (path / BINARY).is_file():
        raise DataError(f"{path} holds no {BINARY}: it is no run of task words, or its training has not ended")
    return path / BINARY if path.is_dir() else path


def _show(found: list[tuple[str, float]]) -> None:
    for word, cosine in found:
        print(f"{cosine:6.3f}  {word}")
