"""`chainrule check`, `why` and `rules`: exit codes, files written, words."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule import cli
from chainrule.api import check
from chainrule.setup_file import load_setup

EXAMPLES = Path(__file__).parents[1] / "examples"

HEALTHY = """
import torch
import chainrule as cr

def setup():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    return cr.Setup(model, lambda model, x: model(x).square().mean(), [torch.randn(6, 3)])

class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g

def broken():
    given = setup()
    return cr.Setup(given.model, lambda model, x: Doubled.apply(model(x)).square().mean(), given.batches)

def vector():
    given = setup()
    return cr.Setup(given.model, lambda model, x: model(x), given.batches)

def cut():
    given = setup()
    return cr.Setup(given.model, lambda model, x: x.square().mean(), given.batches)

def nan():
    given = setup()
    return cr.Setup(given.model, given.loss, [torch.full((6, 3), float("nan"))])

def raises():
    given = setup()
    return cr.Setup(given.model, lambda model, x: model(x[:, :2]).mean(), given.batches)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    path = tmp_path / "models_of_user.py"
    path.write_text(HEALTHY, encoding="utf-8")
    return str(path)


def test_a_healthy_model_exits_with_0_and_the_last_words_are_what_would_have_been_seen(file, capsys):
    assert 0 == cli.run(["check", file])
    assert "PASS  " in capsys.readouterr().out


def test_a_broken_backward_exits_with_1_and_the_command_that_reproduces_it_works(file, capsys):
    assert 1 == cli.run(["check", f"{file}:broken", "--seed", "3"])
    printed = capsys.readouterr().out
    (command,) = {
        line.partition("reproduce: ")[2].split("   ")[0] for line in printed.splitlines() if "reproduce: " in line
    }

    assert 1 == cli.run(command.removeprefix("chainrule ").split())
    assert "error[gradient-mismatch]" in capsys.readouterr().out


def test_json_and_page_are_written(file, tmp_path, capsys):
    cli.run(["check", f"{file}:broken", "--json", str(tmp_path / "r.json"), "--save", str(tmp_path / "r.html")])
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    assert (False, "fail") == (written["ok"], written["verdict"])
    assert "gradient-mismatch" == written["findings"][0]["check"]
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert f"wrote {tmp_path / 'r.json'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{file}:stup"], "did you mean models_of_user.py:setup?"),
        (["missing.py"], "no file 'missing.py'"),
        (["{file}", "--only", "gradient-mismach"], "unknown check 'gradient-mismach'; did you mean gradient-mismatch?"),
        (["{file}", "--only", "qqqq"], "unknown check 'qqqq'; `chainrule why` lists them all\n"),
        (["{file}", "--json", "report.html"], "the name must end in .json"),
        (["{file}", "--save", "report.pdf"], "the name must end in .html, .json, .sarif, .txt"),
        (["{file}", "--sede", "3"], "--seed"),
        (["{file}:vector"], "scalar"),
        (["{file}:cut"], "parameter"),
        (["{file}:nan"], "nan"),
        (["{file}:raises"], "models_of_user.py"),
    ],
)
def test_misuse_exits_with_2_and_says_what_to_do(arguments, words, file, capsys):
    assert 2 == cli.run(["check", *(argument.format(file=file) for argument in arguments)])
    assert words in capsys.readouterr().err


def test_the_process_ends_with_the_exit_code(file):
    program = "from chainrule.cli import main; main()"
    process = subprocess.run(
        [sys.executable, "-c", program, "check", "missing.py"], capture_output=True, text=True, check=False
    )

    assert 2 == process.returncode
    assert "chainrule: no file 'missing.py'" in process.stderr
    assert "Traceback" not in process.stderr


def test_why_without_a_name_lists_every_check_in_a_line(capsys):
    assert 0 == cli.run(["why"])
    lines = capsys.readouterr().out.splitlines()

    assert any(line.startswith("gradient-mismatch: ") for line in lines)
    assert sorted(lines) == lines


def test_why_prints_the_documentation_of_a_check(capsys):
    assert 0 == cli.run(["why", "gradient-mismatch"])
    printed = capsys.readouterr().out
    for heading in ("What it checks", "Why it matters", "How it decides", "Broken", "Repaired", "Limits"):
        assert f"\n{heading}\n" in printed


def test_why_of_a_misspelt_name_suggests_the_right_one(capsys):
    assert 2 == cli.run(["why", "gradient-mismach"])
    assert "no check is called 'gradient-mismach'; did you mean gradient-mismatch?" in capsys.readouterr().err


def test_rules_lists_formulas_by_family(capsys):
    assert 0 == cli.run(["rules", "sigmoid"])
    printed = capsys.readouterr().out

    assert "aten.sigmoid" in printed
    assert "dy/dself = y (1 − y)" in printed or "y · (1 − y)" in printed
    assert 2 == cli.run(["rules", "no_such_op"])


def test_each_stage_is_announced_before_it_runs(file):
    announced = []
    report = check(load_setup(file), announce=announced.append)

    assert [stage.name for stage in report.stages] == [stage for stage in announced if stage != "rehearsal"]
