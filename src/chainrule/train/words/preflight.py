"""The preflight of a run of the kernel: this very kernel, on the beginning of this text, against the gradient engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chainrule.data.vocabulary import Vocabulary
from chainrule.train.engine import Engine
from chainrule.train.words.kernel import Kernel
from chainrule.train.words.proof import Proof, prove
from chainrule.train.words.shape import Shape, make_scratch, make_tables

WORDS = 2048  # most frequent words that take part: the machine code is the same for any vocabulary
BLOCKS = 2  # so that a window reaches from one into the other


@dataclass(frozen=True)
class KernelReport:
    """A verdict in the form of the other preflights."""

    proofs: tuple[Proof, ...]

    @property
    def ok(self) -> bool:
        """The kernel's step is every engine's."""
        return all(proof.ok for proof in self.proofs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "ok": self.ok,
            "verdict": _word(self.ok),
            "findings": [str(proof) for proof in self.proofs if not proof.ok],
            "stages": [
                {
                    "name": f"kernel = {proof.engine}",
                    "verdict": _word(proof.ok),
                    "summary": proof.summary,
                    **asdict(proof),
                }
                for proof in self.proofs
            ],
        }

    def __str__(self) -> str:
        return "\n".join(f"{_word(proof.ok)}  {proof}" for proof in self.proofs)


def _word(ok: bool) -> str:
    return "pass" if ok else "fail"


def prove_kernel(
    kernel: Kernel,
    shape: Shape,
    vocabulary: Vocabulary,
    sample: float,
    tokens: np.ndarray,
    engines: Mapping[str, Engine],
    seed: int,
) -> KernelReport:
    """Prove the kernel on the first words of `tokens` that belong to the 2,048 most frequent ones."""
    known = Vocabulary(vocabulary.words[:WORDS], vocabulary.counts[:WORDS], vocabulary.raw_words)
    beginning = np.ascontiguousarray(tokens[tokens < len(known)][: BLOCKS * shape.block])
    tables = make_tables(shape, known, sample)
    scratch = make_scratch(shape, tables, len(known), len(beginning) + 1)
    return KernelReport(
        tuple(
            prove(kernel, shape, tables, scratch, len(known), beginning, engine, name=name, seed=seed)
            for name, engine in engines.items()
        )
    )
