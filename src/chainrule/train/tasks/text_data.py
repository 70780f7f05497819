"""Text of a run: read, split, encoded once into token files in the run folder, so that a resumed run has the same."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from chainrule.data.split import limit, split
from chainrule.data.text import Corpus, Document, read_text, standard_library
from chainrule.data.token_file import TokenFile, id_type, write_ids
from chainrule.data.tokenizer import encode, end_of_text, load_tokenizer, vocabulary_of
from chainrule.data.windows import Windows, require_windows
from chainrule.errors import CheckpointError, ConfigError, DataError
from chainrule.train.atomic import Writer, read_json, verify_folder, write_folder, write_json, write_text
from chainrule.train.checkpoint import checkpoints
from chainrule.train.config import TrainConfig
from chainrule.train.records import Listener, plural, size
from chainrule.train.tasks.text_sources import choose_tokenizer, given_tokens, kept_elsewhere, the_same

FOLDER = "data"
LIBRARY_MEGABYTES = 6.0
SIDES = ("training", "validation")


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
    """Tokenizer and token rows of a run; `begun` is the vocabulary of the model in its checkpoints, None before the first."""

    tokenizer: Tokenizer
    training: Windows
    validation: Windows
    facts: DataFacts
    begun: int | None = None

    @property
    def vocabulary(self) -> int:
        """Tokens that the tokenizer knows."""
        return vocabulary_of(self.tokenizer)


def prepare(config: TrainConfig, listener: Listener) -> Text:
    """Read and encode the text of a new run. Raises DataError if it cannot be used or is too little."""
    if config.data.tokens:
        return _given(config, listener)
    with listener.phase("reading text"):
        corpus, left_out = _limited(read_text(config.text) if config.text else standard_library(), config)
        sides = split(corpus.documents, config.data.validation_fraction)
    tokenizer = choose_tokenizer(config, sides.training, listener)
    facts = DataFacts(
        corpus.source,
        len(sides.training),
        sum(document.bytes for document in sides.training),
        len(sides.validation),
        sum(document.bytes for document in sides.validation),
        sides.rule,
        left_out,
    )
    with listener.phase("encoding"):
        training, validation = (_encoded(tokenizer, side, config) for side in (sides.training, sides.validation))
    return require_enough(_windows(tokenizer, training, validation, config, facts), config)


def _encoded(tokenizer: Tokenizer, documents: Sequence[Document], config: TrainConfig) -> TokenFile:
    """Encode into a file without a name beside the runs; `save` copies it, and it vanishes with its last user."""
    root = Path(config.runs_folder).absolute()
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    with ExitStack() as unless_written:
        try:
            file: IO[bytes] = unless_written.enter_context(tempfile.TemporaryFile(dir=place))
            ids = write_ids(file, encode(tokenizer, documents), id_type(vocabulary_of(tokenizer)))
        except OSError as error:
            raise ConfigError(f"tokens cannot be written in {place}: {error.strerror}") from None
        weakref.finalize(ids, unless_written.pop_all().close)
        return ids


def _given(config: TrainConfig, listener: Listener) -> Text:
    """The tokens of the user's own files, which are read in place."""
    tokenizer = choose_tokenizer(config, (), listener)
    with listener.phase("reading tokens"):
        training, validation = given_tokens(Path(config.data.tokens), config, vocabulary_of(tokenizer))
        seen = validation[:100_000].tolist()
        bytes_each = len(tokenizer.decode(seen, skip_special_tokens=False).encode()) / len(seen)
    facts = DataFacts(
        f"tokens of {config.data.tokens}",
        1,
        round(bytes_each * len(training)),
        1,
        round(bytes_each * len(validation)),
        "as given",
        "",
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
        f"{len(data.training.tokens):,} to train on, {len(data.validation.tokens):,} to validate, of a vocabulary of "
        f"{data.vocabulary:,}, {facts.validation_bytes / len(data.validation.tokens):.2f} bytes each",
    )


def _limited(corpus: Corpus, config: TrainConfig) -> tuple[Corpus, str]:
    """The corpus within its limit of size, and in words what was left out."""
    megabytes = config.data.max_megabytes or (0 if config.text else LIBRARY_MEGABYTES)
    kept = limit(corpus.documents, round(megabytes * 1e6)) if megabytes else corpus.documents
    said = [f"{number} {kind}" for kind, number in corpus.left_out]
    if len(kept) < len(corpus.documents):
        said.append(f"{len(corpus.documents) - len(kept)} beyond {megabytes:g} MB (data.max_megabytes)")
    return Corpus(corpus.source, kept), ", ".join(said)


def _windows(
    tokenizer: Tokenizer, training: TokenFile, validation: TokenFile, config: TrainConfig, facts: DataFacts
) -> Text:
    end = end_of_text(tokenizer) if config.data.pack else None
    context = config.model.context
    return Text(tokenizer, Windows(training, context, end), Windows(validation, context, end), facts)


def require_enough(data: Text, config: TrainConfig) -> Text:
    """Raise DataError if there is no whole batch of windows, or no validation window."""
    require_windows(data.training, config.data.batch_size if config.method == "mini-batch" else 1, "training")
    require_windows(data.validation, 1, "validation")
    return data


# --- the run folder ---------------------------------------------------------------------------------------------------


def save(folder: Path, data: Text) -> None:
    """Write tokenizer and tokens to the run folder; of token files that the user gave, where they are and their sha256."""
    rows = {side: _file(windows) for side, windows in zip(SIDES, (data.training, data.validation), strict=True)}
    files: dict[str, Writer] = {f"{side}.bin": _copier(row) for side, row in rows.items() if not kept_elsewhere(row)}
    kept = {side: {"dtype": row.dtype.str, "count": row.count, **kept_elsewhere(row)} for side, row in rows.items()}
    files |= {"tokens.json": write_json(kept), "facts.json": write_json(asdict(data.facts))}
    write_folder(folder / FOLDER, files)
    write_text(folder / "tokenizer.json", data.tokenizer.to_str(pretty=True))


def _file(windows: Windows) -> TokenFile:
    assert isinstance(windows.tokens, TokenFile)
    return windows.tokens


def _copier(row: TokenFile) -> Writer:
    def copy(path: Path) -> None:
        with path.open("wb") as target:
            for chunk in row.chunks():
                target.write(chunk.tobytes())

    return copy


def load(folder: Path, config: TrainConfig) -> Text | None:
    """What `save` wrote; None if the run was killed before that. Raises CheckpointError if damaged."""
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        verify_folder(folder / FOLDER)
        facts = DataFacts(**read_json(folder / FOLDER / "facts.json"))
        kept = read_json(folder / FOLDER / "tokens.json")
        training, validation = (the_same(folder / FOLDER / f"{side}.bin", kept[side]) for side in SIDES)
    except (CheckpointError, DataError, OSError, TypeError, KeyError) as error:
        raise CheckpointError(f"the data of {folder} is damaged: {error}; start a new run") from None
    return replace(_windows(tokenizer, training, validation, config, facts), begun=_vocabulary_of_checkpoints(folder))


def _vocabulary_of_checkpoints(folder: Path) -> int | None:
    """Tokens that a run's model knows, which may be more than its tokenizer does; None before the first checkpoint."""
    for path in checkpoints(folder):
        try:
            with safe_open(path / "model.safetensors", "pt") as file:
                return int(file.get_slice("tokens.weight").get_shape()[0])
        except (OSError, SafetensorError):  # a damaged one is named where it is to be loaded
            continue
    return None
