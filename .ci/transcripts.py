"""Write the transcripts of README.md anew: each `$ chainrule ...` block gets what the command prints now."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"```console\n\$ chainrule (.*?[^\\])\n(.*?)```", flags=re.DOTALL)


def renewed(block: re.Match[str]) -> str:
    """The block with the command's present output."""
    words = shlex.split(block.group(1).replace("\\\n", " "))
    command = [sys.executable, "-c", "from chainrule.cli import main; main()", *words]
    environment = os.environ | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1", "CI": ""}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if words[0] == "run" else subprocess.PIPE}
    printed = subprocess.run(command, **both, text=True, check=False, cwd=README.parent, env=environment)
    return f"```console\n$ chainrule {block.group(1)}\n{printed.stdout}```"


if __name__ == "__main__":
    README.write_text(BLOCK.sub(renewed, README.read_text(encoding="utf-8")), encoding="utf-8")
