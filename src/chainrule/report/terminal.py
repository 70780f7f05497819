"""The text report on a terminal, in colour; plain where the output is a file or NO_COLOR is set."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from chainrule.report.contents import Contents
from chainrule.report.text import lines, text

STYLES = {
    "error": "bold red",
    "fail": "bold red",
    "warning": "bold yellow",
    "unresolved": "bold yellow",
    "info": "bold cyan",
    "pass": "bold green",
    "skipped": "dim",
    "quiet": "dim",
    "where": "cyan",
    "strong": "bold",
    "": "",
}


def show(contents: Contents, file: TextIO | None = None) -> None:
    """Print the report to `file` (standard output), as wide as the terminal, in colour only if it is one."""
    console = Console(file=file or sys.stdout, highlight=False)
    if console.is_terminal and not os.environ.get("NO_COLOR"):
        for line in lines(contents, console.width):
            console.print(Text.assemble(*((part, STYLES[role]) for part, role in line)), soft_wrap=True)
    else:
        console.file.write(text(contents) + "\n")
