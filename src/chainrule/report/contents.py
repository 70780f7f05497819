"""What a report holds: plain data that the renderers (text, JSON, SARIF, HTML) read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chainrule.finding import Finding, Severity, StageResult, Verdict, verdict_of

ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Contents:
    """Everything that a check found, and what it could have seen.

    findings  in the order in which the checks made them
    stages    in the order in which they ran
    subject   (label, value) lines that say what was checked: model, parameters, batch
    seed      of the directions and samples that were drawn: with it the same report is made again
    versions  name -> version of what decides the numbers
    command   the command line that repeats the check
    notes     sentences on what capture had to change or leave out
    """

    findings: tuple[Finding, ...] = ()
    stages: tuple[StageResult, ...] = ()
    subject: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no finding has severity "error"."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def verdict(self) -> Verdict:
        """fail if any error; else unresolved if any required resolution was not reached; else pass."""
        return verdict_of(self.findings)

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """The findings, errors first, otherwise in their order."""
        return tuple(sorted(self.findings, key=lambda finding: ORDER.index(finding.severity)))

    @property
    def compared(self) -> tuple[StageResult, ...]:
        """The stages that ran and state a resolution."""
        return tuple(stage for stage in self.stages if stage.verdict is not None and stage.resolution is not None)

    @property
    def coarsest(self) -> StageResult | None:
        """Of the stages that state a resolution, the one that sees least; None if none does."""
        return max(self.compared, key=lambda stage: stage.resolution or 0.0, default=None)

    @property
    def seconds(self) -> float:
        """Time of all stages together."""
        return sum(stage.seconds for stage in self.stages)
