"""What a user may bring to a run of text instead of letting us make it: a tokenizer, and files of token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from chainrule.data.text import Document
from chainrule.data.token_file import TokenFile, open_ids
from chainrule.data.tokenizer import byte_tokenizer, load_tokenizer, train_tokenizer
from chainrule.errors import CheckpointError, DataError
from chainrule.train.config import TrainConfig
from chainrule.train.huggingface.folder import tokenizer_of
from chainrule.train.records import Listener


def choose_tokenizer(config: TrainConfig, documents: Sequence[Document], listener: Listener) -> Tokenizer:
    """The tokenizer of `data.tokenizer`: learned from the documents, the bytes, or read from a file."""
    name = config.data.tokenizer
    if name == "bytes":
        return byte_tokenizer()
    if name == "auto" and config.model.pretrained:
        return load_tokenizer(tokenizer_of(Path(config.model.pretrained)))
    if name not in ("auto", "bpe"):
        return load_tokenizer(Path(name).expanduser())
    if not documents:
        raise DataError("data.tokens names a file of token ids: say which tokenizer made them, by --data.tokenizer")
    with listener.phase("learning the tokenizer from the training files"):
        return train_tokenizer(documents, config.data.vocabulary)


def given_tokens(path: Path, config: TrainConfig, vocabulary: int) -> tuple[TokenFile, TokenFile]:
    """(training, validation): train.bin and val.bin of a folder, or one file whose end is for validation."""
    path = path.expanduser().absolute()
    if path.is_dir():
        return open_ids(path / "train.bin", vocabulary), open_ids(path / "val.bin", vocabulary)
    whole = open_ids(path, vocabulary)
    cut = round(whole.count * (1 - config.data.validation_fraction))
    if not 0 < cut < whole.count:
        raise DataError(f"{path} holds {whole.count} token ids: too few to split for validation")
    return whole.part(0, cut), whole.part(cut, whole.count)


def kept_elsewhere(row: TokenFile) -> dict[str, Any]:
    """Where a file of the user's lies, and the sha256 of the part that is used; nothing for a file of our own."""
    if not isinstance(row.file, Path):
        return {}
    return {"path": str(row.file), "offset": row.offset, "sha256": _digest(row)}


def the_same(own: Path, kept: Mapping[str, Any]) -> TokenFile:
    """The token file that a run began with. Raises CheckpointError if it has changed since."""
    dtype, count = np.dtype(kept["dtype"]), int(kept["count"])
    if "path" not in kept:
        if own.stat().st_size != count * dtype.itemsize:
            raise CheckpointError(f"{own} is not {count:,} ids long")
        return TokenFile(own, dtype, count)
    row = TokenFile(Path(kept["path"]), dtype, count, int(kept["offset"]))
    try:
        changed = _digest(row) != kept["sha256"]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{row.file} cannot be read: {error}") from None
    if changed:
        raise CheckpointError(f"{row.file} has changed since the run began")
    return row


def _digest(row: TokenFile) -> str:
    digest = hashlib.sha256()
    for chunk in row.chunks():
        digest.update(chunk.tobytes())
    return digest.hexdigest()
