"""Text of a run: read, split, tokenised once, and kept in the run folder, so that a resumed run has the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from chainrule.data.split import limit, split
from chainrule.data.text import Corpus, read_text, standard_library
from chainrule.data.tokenizer import Tokens, encode, load_tokenizer, train_tokenizer
from chainrule.data.windows import Windows, require_windows
from chainrule.errors import CheckpointError, DataError
from chainrule.train.atomic import read_json, write_folder, write_json, write_text
from chainrule.train.config import TrainConfig
from chainrule.train.records import Listener, plural

FOLDER = "data"
LIBRARY_MEGABYTES = 6.0


@dataclass(frozen=True)
class DataFacts:
    """Where the tokens come from, for the reader of a report."""

    source: str
    training_files: int
    training_bytes: int
    validation_files: int
    validation_bytes: int
    rule: str
    left_out: str


@dataclass(frozen=True)
class Text:
    """Tokenizer and token rows of a run."""

    tokenizer: Tokenizer
    training: Windows
    validation: Windows
    facts: DataFacts

    @property
    def vocabulary(self) -> int:
        """Tokens that the tokenizer knows."""
        return int(self.tokenizer.get_vocab_size())


def prepare(config: TrainConfig, listener: Listener) -> Text:
    """Read and tokenise the text of a new run. Raises DataError if it cannot be used or is too little."""
    with listener.phase("reading text"):
        corpus, left_out = _limited(read_text(config.text) if config.text else standard_library(), config)
        sides = split(corpus.documents, config.data.validation_fraction)
    with listener.phase("learning the tokenizer from the training files"):
        tokenizer = train_tokenizer(sides.training, config.data.vocabulary)
    with listener.phase("encoding"):
        training, validation = encode(tokenizer, sides.training), encode(tokenizer, sides.validation)
    facts = DataFacts(
        corpus.source,
        len(sides.training),
        sum(len(document.text.encode()) for document in sides.training),
        len(sides.validation),
        sum(len(document.text.encode()) for document in sides.validation),
        sides.rule,
        left_out,
    )
    return require_enough(_windows(tokenizer, training, validation, config, facts), config)


def describe(data: Text, listener: Listener) -> None:
    """Say what was read."""
    facts = data.facts
    listener.say(
        "data",
        f"{facts.source}: {plural(facts.training_files, 'file')}, {size(facts.training_bytes)} to train on; "
        f"{plural(facts.validation_files, 'file')}, {size(facts.validation_bytes)} to validate",
    )
    if facts.left_out:
        listener.say("left out", facts.left_out)
    listener.say(
        "tokens",
        f"{len(data.training.tokens):,} to train on, {len(data.validation.tokens):,} to validate, of "
        f"{data.vocabulary:,} byte pairs, {facts.validation_bytes / len(data.validation.tokens):.2f} bytes each",
    )


def size(count: int) -> str:
    """Bytes in decimal units."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _limited(corpus: Corpus, config: TrainConfig) -> tuple[Corpus, str]:
    """The corpus within its limit of size, and in words what was left out."""
    megabytes = config.data.max_megabytes or (0 if config.text else LIBRARY_MEGABYTES)
    kept = limit(corpus.documents, round(megabytes * 1e6)) if megabytes else corpus.documents
    said = [f"{number} {kind}" for kind, number in corpus.left_out]
    if len(kept) < len(corpus.documents):
        said.append(f"{len(corpus.documents) - len(kept)} beyond {megabytes:g} MB (data.max_megabytes)")
    return Corpus(corpus.source, kept), ", ".join(said)


def _windows(tokenizer: Tokenizer, training: Tokens, validation: Tokens, config: TrainConfig, facts: DataFacts) -> Text:
    context = config.model.context
    return Text(tokenizer, Windows(training, context), Windows(validation, context), facts)


def require_enough(data: Text, config: TrainConfig) -> Text:
    """Raise DataError if there is no whole batch of windows, or no validation window."""
    require_windows(data.training, config.data.batch_size if config.method == "mini-batch" else 1, "training")
    require_windows(data.validation, 1, "validation")
    return data


def save(folder: Path, data: Text) -> None:
    """Write tokenizer and tokens to the run folder."""
    kind = np.uint16 if data.vocabulary <= 2**16 else np.int32
    rows = {"training": data.training.tokens.astype(kind), "validation": data.validation.tokens.astype(kind)}
    write_folder(
        folder / FOLDER,
        {
            "tokens.safetensors": lambda path: save_file(rows, path),
            "facts.json": write_json(asdict(data.facts)),
        },
    )
    write_text(folder / "tokenizer.json", data.tokenizer.to_str(pretty=True))


def load(folder: Path, config: TrainConfig) -> Text | None:
    """What `save` wrote; None if the run was killed before that. Raises CheckpointError if damaged."""
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        rows = load_file(folder / FOLDER / "tokens.safetensors")
        facts = DataFacts(**read_json(folder / FOLDER / "facts.json"))
    except (DataError, OSError, SafetensorError, TypeError) as error:
        raise CheckpointError(f"the data of {folder} is damaged: {error}; start a new run") from None
    training, validation = rows["training"].astype(np.int32), rows["validation"].astype(np.int32)
    return _windows(tokenizer, training, validation, config, facts)
