"""What a run came to: data for report.json, and the short text that is printed and kept as report.txt."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chainrule.train.prepare import DataFacts

Outcome = Literal["finished", "interrupted", "refused by preflight"]


@dataclass(frozen=True)
class Results:
    """A run's outcome; losses are nats per token.

    validation_loss  of the last weights, on all validation windows
    bigram_loss      of the baseline, on the same targets
    bigram_strength  its smoothing, fitted on a held-out part of the training text
    best_loss        lowest loss on the smaller set that is measured while training
    bytes_per_token  of the validation text, to compare runs of different tokenizers
    tokens_per_second, loop_seconds  of the training loop, all sessions together, measurements included
    total_seconds    of this session, from reading text to the sample
    preflight        verdict of the preflight; None if there was none
    """

    outcome: Outcome
    folder: str
    steps: int
    steps_wanted: int
    parameters: int
    gradient: str
    method: str
    precision: str
    precision_reason: str
    threads: int
    training_loss: float | None
    validation_loss: float | None
    bigram_loss: float
    bigram_strength: float
    best_loss: float | None
    best_step: int
    bytes_per_token: float
    training_tokens: int
    validation_tokens: int
    tokens_seen: int
    tokens_per_second: float
    loop_seconds: float
    total_seconds: float
    preflight: dict[str, Any] | None
    prompt: str
    continuation: str
    data: DataFacts

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "bits_per_byte": self.bits_per_byte}

    @property
    def bits_per_byte(self) -> float | None:
        """Validation loss in bits per byte of text, which does not depend on the tokenizer."""
        if self.validation_loss is None:
            return None
        return self.validation_loss / math.log(2) / self.bytes_per_token

    def __str__(self) -> str:
        return "\n".join(f"{label:<16}{text}" for label, text in self.lines()) + "\n"

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) of the short table."""
        lines = [("outcome", f"{self.outcome} after {self.steps:,} of {self.steps_wanted:,} steps")]
        if self.validation_loss is not None:
            lines += [
                ("validation", f"{self.validation_loss:.4f} nats per token, {self.bits_per_byte:.3f} bits per byte"),
                ("bigram", f"{self.bigram_loss:.4f} nats per token on the same tokens: {self.comparison()}"),
            ]
        if self.training_loss is not None:
            lines.append(("training", f"{self.training_loss:.4f} nats per token, mean of the last steps"))
        if self.tokens_seen:
            speed = f"{self.tokens_per_second:,.0f} tokens/s, {self.tokens_seen:,} tokens in {self.loop_seconds:.0f} s"
            lines.append(("speed", speed))
        lines.append(("time", f"{self.total_seconds:.0f} s in all"))
        return lines

    @property
    def beats_bigram(self) -> bool:
        """The model's validation loss is below the baseline's."""
        return self.validation_loss is not None and self.validation_loss < self.bigram_loss

    def comparison(self) -> str:
        """Who predicts better, and by how much."""
        if self.validation_loss is None:
            return "not compared"
        ratio = math.exp(abs(self.bigram_loss - self.validation_loss))
        who = "the model" if self.beats_bigram else "the bigram model"
        return f"{who} gives the next token {ratio:.2f} times the probability"
