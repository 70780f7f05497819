"""Killed with SIGKILL at random moments and resumed: is every loss, weight and optimizer tensor bitwise as never killed?

    python benchmarks/kill_and_resume.py [--kills N] [--seed N] [--output results/kill_and_resume.json]

Each mode trains a small model twice: once to its end, once in processes that are killed at random moments: between steps,
inside a step, and while a checkpoint is written (one is due every third step, so that many kills fall into one). Dropout,
accumulation from unequal parts, evaluation and a checkpoint at the best loss are on in all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch
from safetensors.torch import load_file

from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.config import LoopConfig, TrainConfig
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.settings import to_toml
from child_runs import finish_child, start_child, steps_written
from small_runs import tiny_config

Change = Callable[[TrainConfig], TrainConfig]
MODES: dict[str, Change] = {
    "adamw, float32": lambda config: config,
    "muon, bfloat16": lambda config: replace(
        config, precision="bfloat16", optimizer=replace(config.optimizer, name="muon")
    ),
    "lion, float16": lambda config: replace(
        config, precision="float16", optimizer=replace(config.optimizer, name="lion")
    ),
    "momentum, plateau": lambda config: replace(
        config,
        optimizer=replace(config.optimizer, name="momentum"),
        schedule=replace(config.schedule, name="plateau", plateau_patience=1),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="in all modes together")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "kill_and_resume.json")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    kills = [options.kills // len(MODES) + (n < options.kills % len(MODES)) for n in range(len(MODES))]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {
            name: outcome(Path(folder) / str(n), change, count, options.steps, draw)
            for n, ((name, change), count) in enumerate(zip(MODES.items(), kills, strict=True))
        }
    result = {
        "command": " ".join(["python", "benchmarks/kill_and_resume.py", *sys.argv[1:]]),
        "torch": str(torch.__version__),
        "threads": 1,
        "kills": sum(kills),
        "all bitwise equal": all(one["equal"] for one in outcomes.values()),
        "modes": outcomes,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def outcome(folder: Path, change: Change, kills: int, steps: int, draw: random.Random) -> dict[str, Any]:
    """Train once whole and once killed so many times; compare all that is left."""
    config = change(tiny_config(folder, steps=steps, loop=LoopConfig(5, 8, 3, preflight=False, compile="off")))
    config = replace(config, data=replace(config.data, micro_batch_size=3))
    whole, killed = folder / "runs" / "whole", folder / "runs" / "killed"
    for name in ("whole", "killed"):
        (folder / f"{name}.toml").write_text(to_toml(replace(config, name=name)))
    finish_child(start_child(folder / "whole.toml"))
    writing = sum(
        kill(start_child(killed if n else folder / "killed.toml"), killed, steps // kills, draw) for n in range(kills)
    )
    finish_child(start_child(killed))
    return {"kills": kills, "while a checkpoint was written": writing, "equal": alike(whole, killed)}


def kill(process: subprocess.Popen[str], folder: Path, more: int, draw: random.Random) -> bool:
    """SIGKILL at a random moment of the next few steps; True if a checkpoint was being written."""
    wanted = steps_written(folder) + draw.randrange(1, max(2, more - 3))
    while process.poll() is None and steps_written(folder) < wanted:
        time.sleep(0.002)
    time.sleep(draw.random() * 0.06)
    if process.poll() is not None:
        raise SystemExit(f"it ended before it was killed: {process.communicate()[0]}")
    process.kill()
    process.wait()
    return any((folder / "checkpoints").glob(".writing-*"))


def alike(one: Path, two: Path) -> bool:
    """Losses, gradient norms, validation losses, weights and optimizer tensors of two runs are bitwise the same."""
    steps = [[(r.step, r.loss, r.gradient_norm, r.learning_rate) for r in read_steps(run)] for run in (one, two)]
    same = steps[0] == steps[1] and read_evaluations(one) == read_evaluations(two)
    for file in ("model.safetensors", "optimizer.safetensors"):
        first, second = (load_file(newest_checkpoint(run) / file) for run in (one, two))
        same = same and first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    return same


if __name__ == "__main__":
    main()
