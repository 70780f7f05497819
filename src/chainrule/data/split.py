"""Training and validation text are different files, chosen by a hash of each file's path.

A file keeps its side when other files come or go. Splitting by file, not by window, keeps a file's own repetitions
out of the validation loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chainrule.data.text import Document
from chainrule.errors import DataError


@dataclass(frozen=True)
class Split:
    """The two sides, and in words how they were made."""

    training: tuple[Document, ...]
    validation: tuple[Document, ...]
    rule: str


def place(path: str) -> float:
    """A number in [0, 1) that depends on the path alone."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8]) / 2**64


def limit(documents: Sequence[Document], max_bytes: int) -> tuple[Document, ...]:
    """Keep whole documents up to `max_bytes`, picked by another hash than the split's; their order stays."""
    kept: set[str] = set()
    total = 0
    for document in sorted(documents, key=lambda document: place("keep " + document.path)):
        size = document.bytes
        if total + size <= max_bytes or not kept:
            kept.add(document.path)
            total += size
    return tuple(document for document in documents if document.path in kept)


def split(documents: Sequence[Document], validation_fraction: float) -> Split:
    """Divide documents by the hash of their paths; a single document is cut, its end is for validation."""
    if len(documents) == 1:
        return _cut(documents[0], validation_fraction)
    chosen = {document.path for document in documents if place(document.path) < validation_fraction}
    rule = f"by file, those whose path's hash is below {validation_fraction:g}"
    if not 0 < len(chosen) < len(documents):
        chosen = {min(documents, key=lambda document: (document.bytes, document.path)).path}
        rule = "by file, the smallest one (the hash put all files on one side)"
    return Split(
        tuple(document for document in documents if document.path not in chosen),
        tuple(document for document in documents if document.path in chosen),
        rule,
    )


def _cut(document: Document, validation_fraction: float) -> Split:
    """Cut one document at the end of a line."""
    text = document.text
    wanted = round(len(text) * (1 - validation_fraction))
    at = text.rfind("\n", 0, wanted) + 1 or wanted
    if not text[:at].strip() or not text[at:].strip():
        raise DataError(f"{document.path} holds {len(text)} characters: too little to split for validation")
    start, end = replace(document, stop=at), replace(document, start=at)
    return Split((start,), (end,), f"the last {validation_fraction:.0%} of the only file")
