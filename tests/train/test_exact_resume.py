"""A run that is killed with SIGKILL at random moments and resumed equals, bit for bit, one that never was."""

import random
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.config import LoopConfig
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.settings import to_toml
from child_runs import finish_child, kill_child_after, start_child
from small_runs import tiny_config

STEPS = 200


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

    finish_child(start_child(tmp_path / "whole.toml"))
    kill_child_after(start_child(tmp_path / "killed.toml"), killed, draw.randrange(1, 40), draw.random() / 30)
    for _ in range(2):
        kill_child_after(start_child(killed), killed, draw.randrange(1, 25), draw.random() / 30)
    finish_child(start_child(killed))

    assert STEPS == len(read_steps(whole))
    assert [(r.step, r.loss, r.gradient_norm) for r in read_steps(whole)] == [
        (r.step, r.loss, r.gradient_norm) for r in read_steps(killed)
    ]
    assert read_evaluations(whole) == read_evaluations(killed)
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = load_file(newest_checkpoint(whole) / file), load_file(newest_checkpoint(killed) / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
