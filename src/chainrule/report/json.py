"""The report as JSON: verdict, findings and stages by the names that the Python API uses.

{"ok": bool, "verdict": "pass" | "fail" | "unresolved",
 "findings": [{"check", "severity", "where", "source": {"file", "line", "code"} | null, "message", "evidence", ...}],
 "stages": [{"name", "verdict": ... | null, "summary", "resolution": number | null, "seconds", "not_run"}],
 "subject", "notes", "seed", "versions", "command"}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from chainrule.finding import Finding, StageResult
from chainrule.report.contents import Contents


def as_dict(contents: Contents) -> dict[str, Any]:
    """The report as dicts, lists, strings and finite numbers only; inf and nan become strings, for JSON has none."""
    return {
        "ok": contents.ok,
        "verdict": contents.verdict,
        "findings": [_finding(finding) for finding in contents.findings],
        "stages": [_stage(stage) for stage in contents.stages],
        "subject": dict(contents.subject),
        "notes": list(contents.notes),
        "seed": contents.seed,
        "versions": dict(contents.versions),
        "command": contents.command,
    }


def dumps(contents: Contents) -> str:
    """The report as a JSON text."""
    return json.dumps(as_dict(contents), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """`value` as JSON has it: tuples become lists, keys strings, inf and nan strings, anything else its `str`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "where": finding.where,
        "source": asdict(finding.source) if finding.source else None,
        "message": finding.message,
        "evidence": plain(finding.evidence),
        "rows": [list(row) for row in finding.rows],
        "notes": list(finding.notes),
        "reproduce": finding.reproduce,
        "unresolved": finding.unresolved,
    }


def _stage(stage: StageResult) -> dict[str, Any]:
    return {
        "name": stage.name,
        "verdict": stage.verdict,
        "summary": stage.summary,
        "resolution": plain(stage.resolution),
        "not_run": {name: refusal.reason for name, refusal in stage.not_run.items()},
        "seconds": plain(stage.seconds),
    }
