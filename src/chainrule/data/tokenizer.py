"""A byte-level byte-pair tokenizer, learned from the training documents only.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2; on bytes as in GPT-2,
so that every text can be written and no token stands for "unknown".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chainrule.data.text import Document
from chainrule.errors import DataError

END_OF_TEXT = "<|endoftext|>"
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


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> Tokens:
    """All documents as one row of token ids, each ended by the end-of-text mark."""
    tokenizer.encode_special_tokens = True  # the mark's letters in a text are letters
    end = tokenizer.token_to_id(END_OF_TEXT)
    encodings = tokenizer.encode_batch_fast([document.text for document in documents])
    return np.concatenate([np.array([*encoding.ids, end], dtype=np.int32) for encoding in encodings])


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json. Raises DataError if it is missing or damaged."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for bad JSON
        raise DataError(f"{path} cannot be read as a tokenizer: {error}") from None


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 of the tokenizer's JSON form: two tokenizers with the same one encode alike."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
