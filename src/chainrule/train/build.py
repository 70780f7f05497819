"""Configuration and task to the job of the loop: device, precision, optimizer; every automatic choice has its reason."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from chainrule.errors import ConfigError
from chainrule.train.checkpoint import State
from chainrule.train.config import Device, TrainConfig
from chainrule.train.engine import Engine
from chainrule.train.loop import Job, micro_batches
from chainrule.train.optimizers import count, make_optimizer
from chainrule.train.precision import Choice, choose_precision, in_precision
from chainrule.train.randomness import preserved_randomness
from chainrule.train.records import Listener, plural
from chainrule.train.run_folder import as_tables
from chainrule.train.task import Task


def build_job(
    config: TrainConfig, folder: Path, task: Task, engine: Engine, listener: Listener
) -> tuple[Job, dict[str, str]]:
    """Make what the loop works with, its automatic choices resolved; and their reasons, by setting."""
    device = choose_device(config)
    model = task.model.to(device)
    if config.precision == "float64" or (config.precision == "auto" and config.gradient == "numerical"):
        model.double()
    config = replace(config, device=_resolved_device(config))
    job = Job(
        config=config,
        task=task,
        model=model,
        optimizer=make_optimizer(model, config.optimizer),
        loss=task.loss,
        engine=engine,
        device=device,
        folder=folder,
        facts={},
    )
    choice = _precision(job, listener)
    config = replace(config, precision=choice.precision)
    loss = in_precision(task.loss, choice.precision, device)
    job = replace(job, config=config, loss=loss, facts=_facts(config, task))
    _announce(job, choice, listener)
    return job, {"precision": choice.reason}


def choose_device(config: TrainConfig) -> torch.device:
    """The device asked for; auto takes cuda if there is one. Raises ConfigError if it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = _resolved_device(config)
    if not available[name]:
        raise ConfigError(f"device is {name!r}: this machine, or this build of torch, has none; take --device cpu")
    return torch.device(name)


def _resolved_device(config: TrainConfig) -> Device:
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _precision(job: Job, listener: Listener) -> Choice:
    config = job.config
    if config.precision != "auto":
        return Choice(config.precision, "as set")
    if config.gradient == "numerical":
        return Choice("float64", "auto: finite differences drown in float32's rounding")
    if config.gradient == "chain_rule":
        return Choice("float32", "auto: the chain-rule engine computes in float32 or float64")
    with preserved_randomness(), listener.phase("timing float32 and bfloat16"):
        return choose_precision(job.model, job.loss, next(micro_batches(job, State())), job.device)


def _facts(config: TrainConfig, task: Task) -> dict[str, Any]:
    """What a checkpoint says of its origin."""
    return {
        "config": as_tables(config),
        **task.origin,
        "versions": {name: version(name) for name in ("chainrule", "torch", "numpy", "tokenizers")}
        | {"python": platform.python_version()},
    }


def _announce(job: Job, choice: Choice, listener: Listener) -> None:
    """Say what is trained, and every automatic choice with its reason."""
    config, task = job.config, job.task
    listener.say("model", f"{task.description}: {count(job.model):,} parameters")
    listener.say(
        "update",
        f"{config.optimizer.name}, {config.method}: {plural(task.batch_size, task.example)} of "
        f"{len(task.training):,}; {plural(config.steps, 'step')}",
    )
    listener.say("gradient", f"{config.gradient} on {job.device.type}, {plural(torch.get_num_threads(), 'thread')}")
    listener.say("precision", f"{choice.precision}, {choice.reason}")
