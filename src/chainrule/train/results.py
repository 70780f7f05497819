"""What a run came to: data for report.json, and the short text that is printed and kept as report.txt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["finished", "stopped early", "interrupted", "refused by preflight"]


@dataclass(frozen=True)
class Results:
    """A run's outcome; losses are in `loss_unit`, that of training in `trained_unit`.

    trained_over     steps or the epoch that `training_loss` is the mean of
    validation_loss  of the last weights, of the best ones if the run stopped early, on all validation examples
    baseline_loss    of the baseline, on the same ones
    best_loss        lowest loss on the smaller set that is measured while training
    terms_per_second, loop_seconds  of the training loop, all sessions together, measurements included
    total_seconds    of this session, from reading data to the end
    resumed_at       step that this session went on from; 0 if it is the first one
    preflight        the preflight's report; None if there was none
    metrics, conclusion, prompt, continuation   what the task says of the model: numbers, lines, a sample
    data             where the examples come from
    """

    outcome: Outcome
    folder: str
    task: str
    steps: int
    steps_wanted: int
    parameters: int
    gradient: str
    method: str
    precision: str
    precision_reason: str
    threads: int
    loss_unit: str
    trained_unit: str
    training_loss: float | None
    trained_over: str
    validation_loss: float | None
    baseline: str
    baseline_loss: float
    comparison: str
    best_loss: float | None
    best_step: int
    term: str
    terms_seen: int
    terms_per_second: float
    loop_seconds: float
    total_seconds: float
    resumed_at: int
    preflight: dict[str, Any] | None
    metrics: dict[str, float]
    conclusion: tuple[tuple[str, str], ...]
    prompt: str
    continuation: str
    data: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(f"{label:<16}{text}" for label, text in self.lines()) + "\n"

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) of the short table."""
        lines = [("outcome", f"{self.outcome} after {self.steps:,} of {self.steps_wanted:,} steps")]
        if self.validation_loss is not None:
            lines += [
                ("validation", f"{self.validation_loss:.4f} {self.loss_unit}, on all validation examples"),
                ("to beat", f"{self.baseline_loss:.4f}, {self.baseline}, on the same {self.term}s: {self.comparison}"),
            ]
        lines += self.conclusion
        if self.training_loss is not None:
            lines.append(("training", f"{self.training_loss:.4f} {self.trained_unit}, mean of {self.trained_over}"))
        if self.terms_seen:
            speed = f"{self.terms_per_second:,.0f} {self.term}s/s, {self.terms_seen:,} in {self.loop_seconds:.0f} s"
            lines.append(("speed", speed + (", all sessions together" if self.resumed_at else "")))
        session = f"for this session, from step {self.resumed_at:,} on" if self.resumed_at else "in all"
        lines.append(("time", f"{self.total_seconds:.0f} s {session}"))
        return lines

    @property
    def beats_baseline(self) -> bool:
        """The model's validation loss is below the baseline's."""
        return self.validation_loss is not None and self.validation_loss < self.baseline_loss
