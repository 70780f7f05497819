"""The front page tells the truth: its transcripts are what the commands print, its Python runs, its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import chainrule as cr
from chainrule import cli
from chainrule.checks.gradient import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRANSCRIPTS = re.findall(r"```console\n\$ chainrule (.*?[^\\])\n(.*?)```", README, flags=re.DOTALL)
MEASURED = (
    r"<?[-+]?\d+(\.\d+)+(e[-+]?\d+)?|[-+]?\d+e[-+]\d+|\d+(?= (s|min|GB|MB)\b)|\+cpu|\+cu\d+"  # differs between machines
)


def without_measurements(text):
    """The words and counts of a transcript: measured numbers masked, lines joined."""
    return " ".join(re.sub(MEASURED, "#", text).split())


def test_there_are_transcripts():
    assert {"check", "run", "numerical", "explain"} == {command.split()[0] for command, _ in TRANSCRIPTS}


@pytest.mark.parametrize(("command", "shown"), TRANSCRIPTS, ids=[command.split()[1] for command, _ in TRANSCRIPTS])
def test_a_transcript_is_what_the_command_prints(command, shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CI", raising=False)
    words = shlex.split(command.replace("\\\n", " "))
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if words[0] == "run" else subprocess.PIPE}
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    printed = subprocess.run(
        [sys.executable, "-m", "chainrule", *words], **both, text=True, env=environment, check=False
    )

    assert without_measurements(shown) == without_measurements(printed.stdout)


def test_the_python_of_the_front_page_runs(tmp_path, monkeypatch, capsys):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(torch.tanh(self.hidden(x)))

    monkeypatch.chdir(tmp_path)
    block = next(code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "cr.capture" in code)
    names = {"cr": cr, "model": Model(), "loss": lambda model, x: (model(x) ** 2).mean(), "batch": torch.randn(5, 3)}
    exec(block, names)

    assert {"hidden.weight", "hidden.bias", "out.weight", "out.bias"} == names["gradients"].keys()
    assert (1, 4) == tuple(names["estimate"].gradient.shape)
    assert names["report"].ok
    assert "def " in capsys.readouterr().out


def test_every_command_of_the_front_page_exists():
    named = set(re.findall(r"`chainrule (\w+)", README)) | set(re.findall(r"chainrule (train)", README))

    assert set() == named - {command.__name__ for command in cli.COMMANDS}


def test_the_stages_of_the_documentation_are_those_that_run():
    described = re.findall(
        r"^\| (\d\w? [\w ]+?) \|", (ROOT / "docs" / "gradients.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )

    assert list(STAGES) == described
