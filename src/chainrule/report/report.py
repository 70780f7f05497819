"""`Report`: what `check` returns; prints itself, and saves itself as text, JSON, SARIF or a page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chainrule.errors import ConfigError
from chainrule.report import html, json, sarif, text, words
from chainrule.report.contents import Contents

WRITERS: Mapping[str, Callable[[Contents], str]] = MappingProxyType(
    {
        ".txt": lambda contents: text.text(contents) + "\n",
        ".json": json.dumps,
        ".sarif": sarif.dumps,
        ".html": html.page,
    }
)


@dataclass(frozen=True, repr=False)
class Report(Contents):
    """What a check found, what it could have seen, and the verdict.

    `print(report)` shows it as text, as wide as the terminal. `report.ok` is True unless a finding is an error;
    `report.verdict` is "pass", "fail" or "unresolved".
    """

    def to_dict(self) -> dict[str, Any]:
        """Verdict, findings and stages as JSON has them."""
        return json.as_dict(self)

    def save(self, path: str | Path) -> Path:
        """Write the report; the suffix says how: .html, .json, .sarif or .txt. Raises ConfigError for any other."""
        path = Path(path)
        writer = WRITERS.get(path.suffix.lower())
        if writer is None:
            raise ConfigError(
                f"cannot save a report as {path.name!r}: the name must end in {', '.join(sorted(WRITERS))}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(writer(self), encoding="utf-8")
        return path

    def __str__(self) -> str:
        return text.text(self, shutil.get_terminal_size(fallback=(100, 24)).columns)

    def __repr__(self) -> str:
        return f"<Report {self.verdict}: {words.tally(self.findings)}>"
