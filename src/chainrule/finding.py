"""What a check has to say: findings and stage results, as plain data without torch, for every kind of report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Severity = Literal["error", "warning", "info"]
Verdict = Literal["pass", "fail", "unresolved"]


@dataclass(frozen=True)
class Line:
    """A line of the user's code."""

    file: str
    line: int
    code: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw.

    check       name of the check, kebab-case: `chainrule why NAME` explains it
    severity    "error" fails the report; a "warning" does not
    where       module path and op or parameter, e.g. "blocks.3.attention.softmax"
    source      the user's line, if known
    message     one sentence: what is wrong
    evidence    numbers and names, JSON-able; the text report shows the keys that `report.text` knows, JSON shows all
    rows        (label, value, remark) lines that set the compared quantities side by side
    notes       further sentences: extent, pattern, what to change
    reproduce   a command line
    unresolved  True if the finding says that a required resolution was not reached
    """

    check: str
    severity: Severity
    where: str
    message: str
    source: Line | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reproduce: str = ""
    unresolved: bool = False


@dataclass(frozen=True)
class NotRun:
    """Why a check could not be made here.

    reason   a clause for the report: "the model takes no sequence"
    missing  True if something is missing that the user could give, which the text report says; False if there is nothing
             of the kind that the check looks at
    """

    reason: str
    missing: bool = False


@dataclass(frozen=True)
class StageResult:
    """What one stage of a check did: its outcome, what it could have seen, and what it cost.

    name        "0 forward", "1 chain rule", ...
    verdict     of this stage alone; None if it was skipped
    summary     one line for the report, e.g. "124,439,808 entries of 148 parameters agree"
    resolution  smallest relative error that this stage could have seen; None where that has no meaning
    not_run     check -> why it could not be made, of a stage that is a group of checks
    """

    name: str
    verdict: Verdict | None
    summary: str
    resolution: float | None = None
    seconds: float = 0.0
    not_run: Mapping[str, NotRun] = field(default_factory=dict)


# What a check that is no gradient stage returns.
Outcome: TypeAlias = list[Finding] | NotRun


def repeated(command: str, check: str, seed: int) -> str:
    """The command line that runs only one check again; of `run` the flags come before the script, whose own follow it."""
    flags = f"--only {check} --seed {seed}"
    _, run, script = command.partition("chainrule run ")
    return f"chainrule run {flags} {script}" if run else f"{command} {flags}"


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """fail if any error; else unresolved if any resolution was not reached; else pass."""
    if any(finding.severity == "error" for finding in findings):
        return "fail"
    return "unresolved" if any(finding.unresolved for finding in findings) else "pass"
