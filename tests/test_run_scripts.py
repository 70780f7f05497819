"""`chainrule run` on real scripts: preflight and watch, while the script prints what it prints alone, to the last bit."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
TRAINED = {  # script -> classes of the models whose losses are examined
    "plain": ["Sequential"],
    "gan": ["Discriminator", "Generator"],
    "accumulation": ["Sequential"],
    "amp": ["Sequential"],
    "compiled": ["Sequential"],
    "schedulers": ["Sequential"],
    "workers": ["Sequential"],
    "truncated_bptt": ["CharacterModel"],
    "activations_kept": ["Keeping"],
    "trainer": ["GPT2LMHeadModel"],
    "lightning_module": ["Classifier"],
    "ddp": ["Sequential"],
}
NEEDS = {"trainer": "accelerate", "lightning_module": "lightning"}


def run(*words: str, folder: Path = SCRIPTS) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=500, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", TRAINED)
def test_a_script_computes_what_it_computes_alone_and_its_losses_are_proved(script, tmp_path):
    if script in NEEDS and importlib.util.find_spec(NEEDS[script]) is None:
        pytest.skip(f"needs {NEEDS[script]}, of the extra [frameworks]")
    alone = run(f"{script}.py")
    report = tmp_path / "report.json"
    watched = run("-m", "chainrule", "run", "--json", str(report), f"{script}.py")
    assert alone.returncode == 0, alone.stderr
    assert watched.stdout == alone.stdout
    assert watched.returncode == 0, watched.stderr
    said = json.loads(report.read_text())
    assert said["verdict"] == "pass", said["findings"]
    proved = [stage for stage in said["stages"] if stage["name"].startswith("1 chain rule")]
    assert [stage["verdict"] for stage in proved] == ["pass"] * len(TRAINED[script])
    assert [name.split(",")[0] for label, name in said["subject"].items() if label.startswith("model")] == TRAINED[
        script
    ]


def test_files_that_a_script_writes_are_the_same(tmp_path):
    for name, words in (("alone", []), ("watched", ["-m", "chainrule", "run", "--only", "no-rule"])):
        (tmp_path / name).mkdir()
        assert run(*words, "schedulers.py", str(tmp_path / name / "model.pt")).returncode == 0
    assert (tmp_path / "alone/model.pt").read_bytes() == (tmp_path / "watched/model.pt").read_bytes()


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


def test_a_script_that_fails_keeps_its_exit_code_and_its_traceback(tmp_path):
    path = script(tmp_path, "import sys\nsys.exit(7)\n")
    assert run("-m", "chainrule", "run", str(path)).returncode == 7
    path = script(tmp_path, "def f():\n    raise KeyError('nothing')\nf()\n")
    failed = run("-m", "chainrule", "run", str(path))
    assert failed.returncode == 1
    assert "line 3, in <module>" in failed.stderr
    assert "runpy" not in failed.stderr
    assert "cli_run" not in failed.stderr
    assert "chainrule: the script ended with exit code 1, which is this command's too" in failed.stderr.splitlines()


def test_a_line_that_warns_does_so_as_often_as_alone(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    path = script(tmp_path, text.replace("F.cross_entropy(model(x), y)", "F.mse_loss(model(x), y[:1] / 1)"))
    alone, watched = (run(*words, str(path)) for words in ((), ("-m", "chainrule", "run")))
    assert watched.stderr.count("UserWarning: Using a target size") == alone.stderr.count(
        "UserWarning: Using a target size"
    )
    assert alone.stderr.count("UserWarning: Using a target size") == 1


def test_a_script_that_is_interrupted_keeps_its_traceback_and_its_report_is_written(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    line = "        print(float(loss).hex())\n"
    path = script(
        tmp_path, f"import os, signal\n{text}".replace(line, f"{line}        os.kill(os.getpid(), signal.SIGINT)\n")
    )
    alone, report = run(str(path)), tmp_path / "report.json"
    watched = run("-m", "chainrule", "run", "--only", "no-rule", "--json", str(report), str(path))
    assert (alone.returncode, watched.returncode) == (-signal.SIGINT, 130)  # a shell says 130 of both
    assert watched.stdout == alone.stdout
    assert alone.stderr in watched.stderr
    assert "every formula has a rule" in watched.stderr
    assert "chainrule: the script ended with exit code 130, which is this command's too" in watched.stderr.splitlines()
    assert json.loads(report.read_text())["verdict"] == "pass"


def test_a_script_that_catches_its_interruption_ends_as_it_likes(tmp_path):
    path = script(
        tmp_path,
        "import os, signal, sys\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    sys.exit(5)\n",
    )
    assert run("-m", "chainrule", "run", str(path)).returncode == 5


def test_an_interrupted_preflight_ends_its_copy_and_the_script_with_it(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    waiting = """
class Waiting(nn.Module):
    def forward(self, x):
        if os.getpid() != FIRST:  # in the copy
            open("copy", "w").write(str(os.getpid()))
            os.kill(FIRST, signal.SIGINT)
            time.sleep(600)
        return x

model = nn.Sequential(Waiting(),"""
    path = script(
        tmp_path, f"import os, signal, time\nFIRST = os.getpid()\n{text}".replace("model = nn.Sequential(", waiting)
    )
    watched = run("-m", "chainrule", "run", str(path), folder=tmp_path)
    assert watched.returncode == 130
    assert watched.stdout == ""
    assert "chainrule: preflight not possible: it was interrupted" in watched.stderr.splitlines()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "copy").read_text()), 0)


def test_a_loss_that_raises_is_why_there_is_no_preflight(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    wrong = text.replace(
        "        loss.backward()\n",
        "        torch.nn.functional.binary_cross_entropy(loss.sigmoid(), 2 * loss / loss)\n",
    )
    failed = run("-m", "chainrule", "run", str(script(tmp_path, wrong)))
    assert failed.returncode == 1
    why = "the program raised RuntimeError: all elements of target should be between 0 and 1"
    assert failed.stderr.splitlines()[0] == f"chainrule: preflight not possible: {why}"


def test_what_a_script_that_fails_has_not_done_yet_is_not_held_against_it(tmp_path):
    text = (SCRIPTS / "accumulation.py").read_text()
    path = script(tmp_path, f"{text}        if index == 6:\n            raise KeyError('three micro-batches wait')\n")
    failed = run("-m", "chainrule", "run", "--only", "lost-micro-batches", str(path))
    assert failed.returncode == 1
    assert "lost-micro-batches" not in failed.stderr.replace("--only lost-micro-batches", "")


def test_what_follows_the_script_is_the_scripts(tmp_path):
    path = script(tmp_path, "import sys\nprint(sys.argv[1:])\n")
    assert run("-m", "chainrule", "run", "--seed", "3", str(path), "--seed", "5", "--help").stdout == (
        "['--seed', '5', '--help']\n"
    )


def test_a_missing_script_is_misuse(tmp_path):
    missing = run("-m", "chainrule", "run", "no_such.py", folder=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr == "chainrule: there is no file 'no_such.py' to run\n"


def test_steps_and_only_preflight_end_the_script_early():
    stopped = run("-m", "chainrule", "run", "--only", "no-rule", "--steps", "3", "plain.py")
    assert stopped.returncode == 0
    assert len(stopped.stdout.splitlines()) == 2  # the third update was made, its line was not reached
    before = run("-m", "chainrule", "run", "--only", "no-rule", "--only-preflight", "plain.py")
    assert before.stdout == ""
    assert "every formula has a rule" in before.stderr


def test_a_fault_of_the_loop_is_told_at_its_line_and_fails(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    path = script(tmp_path, text.replace("        optimizer.zero_grad()\n", ""))
    watched = run("-m", "chainrule", "run", "--only", "missing-zero-grad", str(path))
    assert watched.returncode == 1
    assert "error[missing-zero-grad]" in watched.stderr
    assert "loss.backward()" in watched.stderr


def test_optimizers_that_share_a_model_are_examined_together(tmp_path):
    text = (SCRIPTS / "plain.py").read_text()
    for old, new in (
        ("AdamW(model.parameters(), lr=3e-3)", "Muon([model[0].weight, model[3].weight])"),
        ("inputs =", "other = torch.optim.AdamW([model[0].bias, model[3].bias])\ninputs ="),
        ("optimizer.zero_grad()", "model.zero_grad()"),
        ("optimizer.step()", "optimizer.step()\n        other.step()"),
    ):
        text = text.replace(old, new)
    report = tmp_path / "report.json"
    watched = run(
        "-m", "chainrule", "run", "--only", "not-in-optimizer", "--json", str(report), str(script(tmp_path, text))
    )
    assert watched.returncode == 0, watched.stderr
    said = json.loads(report.read_text())
    assert said["findings"] == []
    assert [name for label, name in said["subject"].items() if label.startswith("model")] == [
        "Sequential, 323 entries in 4 parameters"
    ]
