"""A fault of torch itself (pytorch#104336, in 2.13 too): after a conversion of the wrapped model the ranks train apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ddp_conversion.py")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


def sums(output: str) -> set[str]:
    return {line for line in output.splitlines() if line.startswith("sum")}


@pytest.mark.slow
def test_the_ranks_train_apart_in_this_torch_and_chainrule_says_why(tmp_path):
    alone = run(str(SCRIPT), "converted")
    assert 2 == len(sums(alone.stdout)), "torch has mended it: this test has had its day"

    report = tmp_path / "report.json"
    watched = run("-m", "chainrule", "run", "--only", "detached-ddp", "--json", str(report), str(SCRIPT), "converted")
    assert 1 == watched.returncode, watched.stderr
    assert sums(alone.stdout) == sums(watched.stdout)
    (finding,) = json.loads(report.read_text())["findings"]
    assert ("detached-ddp", "error") == (finding["check"], finding["severity"])
    assert (
        "DistributedDataParallel averages none of the 4 parameters: they were converted or moved after it was made"
        == finding["message"]
    )
    assert "optimizer.step()" == finding["source"]["code"]


@pytest.mark.slow
def test_a_model_that_is_not_converted_trains_as_one_and_nothing_is_said():
    watched = run("-m", "chainrule", "run", "--only", "detached-ddp", "--only", "replica-drift", str(SCRIPT))
    assert 0 == watched.returncode, watched.stderr
    assert 1 == len(sums(watched.stdout))
