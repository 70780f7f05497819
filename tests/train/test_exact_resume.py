"""A run that is killed with SIGKILL at random moments and resumed equals, bit for bit, one that never was."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.config import LoopConfig
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.settings import to_toml
from small_runs import tiny_config

STEPS = 200
CHILD = """
import sys
from pathlib import Path
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from chainrule.train.settings import load_config
path = Path(sys.argv[1])
run_training(open_run(path) if path.is_dir() else new_run(load_config(path)))
"""


def start(path):
    """A new run of a TOML file, or a run folder resumed, in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_written(folder):
    try:
        return len(read_steps(folder))
    except Exception:  # the file, or its tables, are not there yet
        return 0


def kill_after(process, folder, more, pause):
    """SIGKILL a while after `more` further steps are in the metrics."""
    wanted, deadline = steps_written(folder) + more, time.monotonic() + 120
    while process.poll() is None and steps_written(folder) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(pause)
    assert process.poll() is None, f"ended before it was killed: {process.communicate()[0]}"
    process.kill()
    assert -signal.SIGKILL == process.wait()
    process.stdout.close()


def finish(process):
    output, _ = process.communicate(timeout=240)
    assert 0 == process.returncode, output


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_a_killed_and_resumed_run_equals_one_that_was_never_killed(tmp_path, optimizer):
    config = tiny_config(tmp_path, steps=STEPS, loop=LoopConfig(11, 8, 7, preflight=False))
    config = replace(config, optimizer=replace(config.optimizer, name=optimizer))
    for name in ("whole", "killed"):
        (tmp_path / f"{name}.toml").write_text(to_toml(replace(config, name=name)))
    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    draw = random.Random(optimizer)

    finish(start(tmp_path / "whole.toml"))
    kill_after(start(tmp_path / "killed.toml"), killed, draw.randrange(1, 40), draw.random() / 30)
    for _ in range(2):
        kill_after(start(killed), killed, draw.randrange(1, 25), draw.random() / 30)
    finish(start(killed))

    assert STEPS == len(read_steps(whole))
    assert [(r.step, r.loss, r.gradient_norm) for r in read_steps(whole)] == [
        (r.step, r.loss, r.gradient_norm) for r in read_steps(killed)
    ]
    assert read_evaluations(whole) == read_evaluations(killed)
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = load_file(newest_checkpoint(whole) / file), load_file(newest_checkpoint(killed) / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
