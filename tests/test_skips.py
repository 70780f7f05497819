"""CI accepts a skipped test for known reasons only; shown on a small suite of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.skip(reason="{reason}")
def test_left_out():
    assert False

def test_run():
    assert True
"""


@pytest.mark.parametrize(
    ("reason", "ci", "workers", "code"),
    [
        ("needs CUDA", True, "0", 0),
        ("it is slow today", True, "0", 1),
        ("it is slow today", True, "2", 1),
        ("it is slow today", False, "0", 0),
    ],
)
def test_an_unexplained_skip_fails_in_ci_only(reason, ci, workers, code, tmp_path):
    (tmp_path / "test_small.py").write_text(SUITE.format(reason=reason), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_XDIST_WORKER")}
    environment |= {"PYTHONPATH": str(Path(__file__).parent)} | ({"CI": "true"} if ci else {})
    options = ["-p", "skip_policy", "-p", "no:cacheprovider", "-n", workers, "-c", os.devnull]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert code == run.returncode, run.stdout + run.stderr
    assert (code == 1) == ("skipped in CI without an accepted reason: Skipped: it is slow today" in run.stdout)
