"""How numbers, times and verdicts are worded, the same in every kind of report."""

from __future__ import annotations

from pathlib import Path

from chainrule.finding import Finding, Line, StageResult
from chainrule.report.contents import ORDER, Contents


def count(number: int, noun: str) -> str:
    """`1 error`, `2 errors`, `1,024 entries`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """`<0.01 s`, `0.42 s`, `14 s`, `2 min 23 s`, `3 h 12 min`."""
    if 0 < seconds < 0.01:
        return "<0.01 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def resolution(stage: StageResult) -> str:
    """The smallest relative error that the stage could have seen: `3e-11`; "" where that has no meaning."""
    return "" if stage.resolution is None else f"{stage.resolution:.1g}"


def outcome(stage: StageResult) -> str:
    """The verdict of one stage in a word."""
    return stage.verdict or "skipped"


def tally(findings: tuple[Finding, ...]) -> str:
    """`2 errors, 1 warning`; "no finding" if there is none."""
    by_severity = [(sum(f.severity == severity for f in findings), severity) for severity in ORDER]
    named = {"error": "error", "warning": "warning", "info": "remark"}
    return ", ".join(count(number, named[severity]) for number, severity in by_severity if number) or "no finding"


def conclusion(contents: Contents) -> str:
    """What the verdict means, in one sentence: what was found, or what would have been seen had it been there."""
    if contents.verdict == "fail":
        return f"{tally(contents.findings)}: do not train before the errors are repaired"
    if contents.verdict == "unresolved":
        missed = sum(finding.unresolved for finding in contents.findings)
        return f"no error was found, but {count(missed, 'required resolution')} could not be reached; see the warnings"
    remarks = f"{tally(contents.findings)}; " if contents.findings else ""
    return remarks + _sight(contents)


def _sight(contents: Contents) -> str:
    coarsest, compared = contents.coarsest, contents.compared
    if coarsest is None:
        return "no gradient stage ran, so nothing is said of the gradients"
    size = f"an error of {resolution(coarsest)} of a gradient's norm"
    return f"{compared[0].summary}; {size} would have been seen by every stage that has a resolution"


def file_name(file: str) -> str:
    """A file below the working folder by its relative path, as compilers do; any other as it is."""
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else file


def place(source: Line) -> str:
    """`model.py:118`."""
    return f"{file_name(source.file)}:{source.line}"


def origin(contents: Contents) -> str:
    """Time, seed and versions: what decides the numbers."""
    versions = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    return ", ".join(part for part in (duration(contents.seconds), f"seed {contents.seed}", versions) if part)
