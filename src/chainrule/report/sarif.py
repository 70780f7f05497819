"""The report as SARIF 2.1.0 (OASIS), which editors and code hosts show beside the user's lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chainrule.finding import Finding, Line
from chainrule.report.contents import Contents
from chainrule.report.json import plain
from chainrule.report.words import file_name

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def dumps(contents: Contents) -> str:
    """The report as a SARIF text."""
    return json.dumps(as_log(contents), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_log(contents: Contents) -> dict[str, Any]:
    """A SARIF log of one run: a rule per check that found something, a result per finding."""
    checks = sorted({finding.check for finding in contents.findings})
    driver = {
        "name": "chainrule",
        "version": contents.versions.get("chainrule", "0"),
        "rules": [{"id": check, "help": {"text": f"chainrule why {check}"}} for check in checks],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, checks) for finding in contents.findings],
        "properties": {"verdict": contents.verdict, "seed": contents.seed},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, checks: list[str]) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if finding.source:
        location["physicalLocation"] = _physical(finding.source)
    if finding.where:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.where, "kind": "module"}]
    result = {
        "ruleId": finding.check,
        "ruleIndex": checks.index(finding.check),
        "level": _LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "properties": {"evidence": plain(finding.evidence), "unresolved": finding.unresolved},
    }
    return result | ({"locations": [location]} if location else {})


def _physical(source: Line) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": max(source.line, 1)}
    if source.code:
        region["snippet"] = {"text": source.code}
    return {"artifactLocation": {"uri": _uri(source.file)}, "region": region}


def _uri(file: str) -> str:
    path = Path(file_name(file))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def _message(finding: Finding) -> str:
    rows = [" ".join(part for part in row if part) for row in finding.rows]
    return "\n".join([f"{finding.where}: {finding.message}".removeprefix(": "), *rows, *finding.notes])
