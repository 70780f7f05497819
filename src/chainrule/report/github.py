"""Findings as the workflow commands by which GitHub Actions sets a message beside a line of a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from chainrule.finding import Finding, Severity
from chainrule.report import words
from chainrule.report.contents import Contents

COMMANDS: Mapping[Severity, str] = MappingProxyType({"error": "error", "warning": "warning", "info": "notice"})


def lines(contents: Contents) -> Iterator[str]:
    """One command a finding: `::error file=model.py,line=118,title=gradient-mismatch::blocks.3: your gradient ...`."""
    for finding in contents.ranked:
        yield f"::{COMMANDS[finding.severity]} {_properties(finding)}::{_escaped(_message(finding))}\n"


def _properties(finding: Finding) -> str:
    source = finding.source
    place = {"file": words.file_name(source.file), "line": str(source.line)} if source else {}
    named = {**place, "title": finding.check}
    return ",".join(
        f"{name}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}" for name, value in named.items()
    )


def _message(finding: Finding) -> str:
    return f"{finding.where}: {finding.message}" if finding.where else finding.message


def _escaped(text: str) -> str:
    """Percent, carriage return and line feed would end the command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
