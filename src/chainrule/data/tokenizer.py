"""Byte-level tokenizers: byte pairs learned from the training documents only, the bytes themselves, or a file's.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2; on bytes as in GPT-2,
so that every text can be written and no token stands for "unknown".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chainrule.data.text import Document, pieces
from chainrule.errors import DataError

END_OF_TEXT = "<|endoftext|>"
# How other tokenizers write the mark between two documents.
MARKS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "<|im_end|>", "[EOS]", "[SEP]")
BATCH_CHARACTERS = 2_000_000
Tokens = NDArray[np.int32]


def train_tokenizer(documents: Iterable[Document], vocabulary: int) -> Tokenizer:
    """Learn at most `vocabulary` tokens: 256 bytes, the end-of-text mark, merges by frequency."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """Nothing to learn: token b is the byte b, 256 the end-of-text mark."""
    vocabulary = {character: byte for byte, character in enumerate(_characters())} | {END_OF_TEXT: 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _characters() -> list[str]:
    """The printable character that stands for each byte: itself if it is one, else the next from U+0100 (GPT-2's)."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[Tokens]:
    """The token ids of all documents, some 2 million characters at a time; each document is ended by the end-of-text mark."""
    tokenizer.encode_special_tokens = True  # the mark's letters in a text are letters
    end = end_of_text(tokenizer)
    batch: list[tuple[str, bool]] = []
    size = 0
    for text, last in _parts(documents):
        batch.append((text, last))
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield _ids(tokenizer, batch, end)
            batch, size = [], 0
    if batch:
        yield _ids(tokenizer, batch, end)


def _parts(documents: Iterable[Document]) -> Iterator[tuple[str, bool]]:
    """The pieces of each document in turn, and whether a piece is its last."""
    for document in documents:
        *first, last = pieces(document.text)
        yield from ((text, False) for text in first)
        yield last, True


def _ids(tokenizer: Tokenizer, batch: Sequence[tuple[str, bool]], end: int) -> Tokens:
    encodings = tokenizer.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
    rows = (
        [*encoding.ids, end] if last else encoding.ids for encoding, (_, last) in zip(encodings, batch, strict=True)
    )
    return np.concatenate([np.array(row, dtype=np.int32) for row in rows])


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text, without a mark at its end."""
    tokenizer.encode_special_tokens = True
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id of the mark that ends a document. Raises DataError if the tokenizer has none that is known."""
    for mark in MARKS:
        if (number := tokenizer.token_to_id(mark)) is not None:
            return int(number)
    raise DataError(f"the tokenizer has no end-of-text mark; one of {', '.join(MARKS)} is expected")


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """One more than the largest id."""
    return 1 + max(tokenizer.get_vocab().values())


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json. Raises DataError if it is missing or damaged."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for bad JSON
        raise DataError(f"{path} cannot be read as a tokenizer: {error}") from None


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 of the tokenizer's JSON form: two tokenizers with the same one encode alike."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
