"""Words of a run: counted in one pass over the text, numbered in a second, and kept in the run folder.

Both passes hold a few megabytes of text at a time; training maps the row of numbers. data/ of the run holds

    tokens.int32      the row of word numbers       jobs.safetensors  where each job starts, words of the text in it
    vocabulary.json   words and counts              facts.json        where the text comes from
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from chainrule.data.text import library_files, text_files
from chainrule.data.vocabulary import Vocabulary, make_vocabulary
from chainrule.data.word_corpus import WordCorpus, open_corpus, write_corpus
from chainrule.data.words import Rule, count_words, sentence_of
from chainrule.errors import CheckpointError, DataError
from chainrule.train.atomic import read_json, write_folder, write_json
from chainrule.train.config import TrainConfig
from chainrule.train.records import Listener, plural

FOLDER = "data"
LIBRARY = "Python's standard library"


@dataclass(frozen=True)
class WordFacts:
    """Where the words come from, for the reader of a report."""

    source: str
    files: int
    bytes: int
    left_out: int


@dataclass(frozen=True)
class Words:
    """Vocabulary of a run, and its text: files and how they become words before it is numbered, a corpus afterwards.

    sentence_reason  why a sentence is what it is; "" if the settings say it
    """

    vocabulary: Vocabulary
    facts: WordFacts
    rule: Rule = field(default_factory=Rule)
    sentence_reason: str = ""
    texts: tuple[Path, ...] = ()
    corpus: WordCorpus | None = None


def prepare(config: TrainConfig, listener: Listener) -> Words:
    """Count the words of a new run's text. Raises DataError if it cannot be used or holds too little."""
    texts, left_out = text_files(config.text) if config.text else (library_files(), 0)
    settings, reason = config.words, ""
    if settings.sentence == "auto":
        sentence, reason = sentence_of(texts)
        listener.say("sentence", f"a {sentence}, {reason}")
    else:
        sentence = settings.sentence
    rule = Rule(settings.split, sentence, settings.lowercase)
    with listener.phase(f"counting the words of {plural(len(texts), 'file')}"):
        vocabulary = make_vocabulary(count_words(texts, rule), settings.min_count, settings.max_words)
    size = sum(path.stat().st_size for path in texts)
    facts = WordFacts(", ".join(config.text) or LIBRARY, len(texts), size, left_out)
    return Words(vocabulary, facts, rule, reason, tuple(texts))


def save(folder: Path, words: Words) -> None:
    """Number the words of the text and write everything to the run folder."""
    jobs: dict[str, np.ndarray] = {}

    def write_tokens(path: Path) -> None:
        jobs["starts"], jobs["words"] = write_corpus(path, words.texts, words.rule, words.vocabulary)

    vocabulary = {
        "words": words.vocabulary.words,
        "counts": words.vocabulary.counts.tolist(),
        "raw_words": words.vocabulary.raw_words,
    }
    write_folder(
        folder / FOLDER,
        {
            "tokens.int32": write_tokens,
            "jobs.safetensors": lambda path: save_file(jobs, path),
            "vocabulary.json": write_json(vocabulary),
            "facts.json": write_json(asdict(words.facts)),
        },
    )


def load(folder: Path, config: TrainConfig) -> Words | None:  # noqa: ARG001  all kinds of task load alike
    """What `save` wrote; None if the run was killed before that. Raises CheckpointError if it is damaged."""
    if not (folder / FOLDER).is_dir():
        return None
    try:
        text = read_json(folder / FOLDER / "vocabulary.json")
        vocabulary = Vocabulary(tuple(text["words"]), np.array(text["counts"], np.int64), text["raw_words"])
        jobs = load_file(folder / FOLDER / "jobs.safetensors")
        corpus = open_corpus(folder / FOLDER / "tokens.int32", jobs["starts"], jobs["words"])
        facts = WordFacts(**read_json(folder / FOLDER / "facts.json"))
    except (DataError, OSError, SafetensorError, TypeError, KeyError) as error:
        raise CheckpointError(f"the data of {folder} is damaged: {error}; start a new run") from None
    return Words(vocabulary, facts, corpus=corpus)


def describe(vocabulary: Vocabulary, facts: WordFacts, listener: Listener) -> None:
    """Say what was read."""
    left_out = f"; {facts.left_out} files left out (empty or no text)" if facts.left_out else ""
    listener.say("data", f"{facts.source}: {plural(facts.files, 'file')}, {facts.bytes / 1e6:.1f} MB{left_out}")
    known = int(vocabulary.counts.sum())
    listener.say(
        "words",
        f"{vocabulary.raw_words:,} words; {len(vocabulary):,} different ones make the vocabulary and "
        f"{known / vocabulary.raw_words:.1%} of the text",
    )
