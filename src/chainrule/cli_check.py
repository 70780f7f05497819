"""The commands `check`, `why` and `rules`: strings to objects, and what they return as the exit code.

Rooms are imported inside the commands, so that `chainrule --help` does not load torch.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from chainrule.errors import ConfigError, did_you_mean
from chainrule.report import Report, github, show
from chainrule.setup_file import load_setup

EXIT_CODES: Mapping[str, int] = MappingProxyType({"pass": 0, "fail": 1, "unresolved": 3})


def check(
    target: str,
    /,
    *,
    json: Path | None = None,
    save: Path | None = None,
    only: list[str] | None = None,
    seed: int = 0,
) -> int:
    """Prove the gradients of a model, loss and batch, before compute is spent.

    Exit code 0 pass, 1 fail, 2 misuse, 3 unresolved.

    Parameters
    ----------
    target
        FILE.py or FILE.py:function; the function (default: setup) returns a chainrule.Setup.
    json
        Also write the report as JSON to this file.
    save
        Also write the report to this file; its suffix says how: .html, .sarif, .txt or .json.
    only
        Run only the check of this name; may be given more than once.
    seed
        Of the random directions and samples.
    """
    writable(json, save)
    setup = load_setup(target)
    from chainrule import api  # after the user's file, so that a wrong name is told at once

    with Console(stderr=True).status("capturing the graph") as status:  # a line that moves, on a terminal only
        report = api.check(
            setup,
            seed=seed,
            only=tuple(only or ()),
            command=f"chainrule check {target}",
            announce=lambda stage: status.update(f"stage {stage}"),
        )
    show(report)
    annotate(report)
    write(report, json, save)
    return EXIT_CODES[report.verdict]


def writable(json: Path | None, save: Path | None) -> None:
    """Raise ConfigError, before any work is done, if a report could not be written under its name."""
    for path, suffixes in ((json, (".json",)), (save, (".html", ".json", ".sarif", ".txt"))):
        if path is not None and path.suffix.lower() not in suffixes:
            raise ConfigError(f"cannot write a report to {path.name!r}: the name must end in {', '.join(suffixes)}")


def write(report: Report, json: Path | None, save: Path | None) -> None:
    """Save the report where that is asked for, and say so on stderr."""
    for path in (json, save):
        if path is not None:
            print(f"wrote {report.save(path)}", file=sys.stderr)


def annotate(report: Report) -> None:
    """Where a CI service runs us, findings as workflow commands, which code review shows beside the lines; on stderr."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        print("".join(github.lines(report)), end="", file=sys.stderr)


def why(name: str = "", /) -> int:
    """Explain what a check means: what it looks at, why it matters, how it decides, an example broken and repaired.

    Parameters
    ----------
    name
        The check's name, as a report prints it in brackets; without it all checks are listed.
    """
    from chainrule import preflight

    documented = {name: inspect.getdoc(module) or "" for name, module in preflight.documented().items()}
    if not name:
        for known in sorted(documented):
            print(documented[known].splitlines()[0])
        return 0
    if name not in documented:
        hint = did_you_mean(name, documented, f"known are {', '.join(sorted(documented))}")
        raise ConfigError(f"no check is called {name!r}; {hint}")
    print(documented[name])
    return 0


def rules(contains: str = "", /) -> int:
    """List the derivative rules: every unit formula with its derivative, by family.

    Parameters
    ----------
    contains
        Show only ops whose name contains this.
    """
    from chainrule.derivatives import RULES

    families: dict[str, list[str]] = {}
    for op, rule in RULES.items():
        if contains in str(op):
            family = (rule.local or rule.vjp).__module__.rpartition(".")[2]
            formula, *derivatives = re.split(r"\s{2,}", rule.formula)
            named = f"  {str(op).removesuffix('.default'):38} {formula:42} {'    '.join(derivatives)}"
            families.setdefault(family, []).append(named.rstrip())
    if not families:
        raise ConfigError(f"no op with a derivative rule contains {contains!r} in its name")
    for family in sorted(families):
        print(f"{family}\n" + "\n".join(sorted(families[family])) + "\n")
    print(f"{sum(map(len, families.values()))} rules")
    return 0
