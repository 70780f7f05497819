"""Configuration and task to the job of the loop: device, precision, optimizer; every automatic choice has its reason."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chainrule.errors import ConfigError
from chainrule.train.config import Device, TrainConfig
from chainrule.train.engine import Batch, Engine, Loss
from chainrule.train.loop import Job
from chainrule.train.memory import examples_at_once, free_memory, kept_for_backward
from chainrule.train.moment import unmoved
from chainrule.train.optimizers import count, decaying, make_optimizers
from chainrule.train.penalties import penalised
from chainrule.train.precision import Choice, choose_precision, in_precision, make_scaler, scaled
from chainrule.train.records import Listener, plural
from chainrule.train.run_folder import as_tables
from chainrule.train.task import Task


def build_job(
    config: TrainConfig, folder: Path, task: Task, engine: Engine, listener: Listener
) -> tuple[Job, dict[str, str]]:
    """Make what the loop works with, its automatic choices resolved; and their reasons, by setting."""
    device, why_device = choose_device(config), reason_of_device(config)
    model = task.model.to(device)
    if config.precision == "float64" or (config.precision == "auto" and config.gradient == "numerical"):
        model.double()
    config, task, why_parts = with_micro_batch(config, task, model, device)
    choice = _precision(config, task, model, device, listener)
    compiles, why_compiled = choose_compile(config, device)
    config = replace(
        config,
        device=_resolved_device(config),
        precision=choice.precision,
        loop=replace(config.loop, compile="on" if compiles else "off"),
    )
    objective = penalised(in_precision(task.loss, choice.precision, device), config.regularisation)
    scaler = make_scaler(choice.precision, device)
    job = Job(
        config=config,
        task=task,
        model=model,
        optimizers=make_optimizers(model, config.optimizer),
        scaler=scaler,
        loss=in_precision(task.validated or task.loss, choice.precision, device),
        objective=objective,
        stepped=scaled(compiled(objective, model) if compiles else objective, scaler),
        engine=engine,
        device=device,
        folder=folder,
        facts=_facts(config, task),
    )
    reasons = {
        "device": why_device,
        "precision": choice.reason,
        "loop.compile": why_compiled,
        "data.micro_batch_size": why_parts,
    }
    _announce(job, reasons, listener)
    return job, reasons


def choose_device(config: TrainConfig) -> torch.device:
    """The device asked for; auto takes cuda if there is one. Raises ConfigError if it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = _resolved_device(config)
    if not available[name]:
        raise ConfigError(f"device is {name!r}: this machine, or this build of torch, has none; take --device cpu")
    return torch.device(name)


def _resolved_device(config: TrainConfig) -> Device:
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def with_micro_batch(
    config: TrainConfig, task: Task, model: nn.Module, device: torch.device
) -> tuple[TrainConfig, Task, str]:
    """Both with the micro-batch chosen by the memory that is free, if they leave it open; and why."""
    if task.micro_batch_size:
        return config, task, "as set"
    with unmoved(model):
        batch = task.training.batch(np.arange(1), device)
        each = kept_for_backward(model, lambda: task.loss(model, batch))
    chosen, reason = examples_at_once(task.example, task.batch_size, each, free_memory(device))
    data = replace(config.data, micro_batch_size=chosen)
    return replace(config, data=data), replace(task, micro_batch_size=chosen), reason


def reason_of_device(config: TrainConfig) -> str:
    """Why that device."""
    if config.device != "auto":
        return "as set"
    return "auto: there is a GPU" if torch.cuda.is_available() else "auto: torch sees no CUDA device here"


def kernels_in_words(job: Job) -> str:
    """Whether one pass over each parameter makes an update, or ten."""
    fused = [bool(group.get("fused")) for optimizer in job.optimizers for group in optimizer.param_groups]
    name = job.config.optimizer.name
    if all(fused):
        return f"{name} fused: one pass over each parameter instead of ten"
    return f"{name} {'partly ' if any(fused) else 'not '}fused: torch has no such kernel for all of it"


def choose_compile(config: TrainConfig, device: torch.device) -> tuple[bool, str]:
    """Whether forward and backward are compiled, and why."""
    if config.loop.compile != "auto":
        return config.loop.compile == "on", "as set"
    if device.type != "cuda":
        return False, "auto: on a CPU half a minute of compiling buys a tenth at most"
    if config.gradient != "autograd":
        return False, f"auto: the engine {config.gradient} has its own graph"
    return True, "auto: on a GPU it pays from some hundred steps on"


def compiled(loss: Loss, model: nn.Module) -> Loss:
    """The loss of the compiled model, which shares its parameters with `model`."""
    fast = torch.compile(model)

    def compiled_loss(_: nn.Module, batch: Batch) -> Tensor:
        return loss(fast, batch)

    return compiled_loss


def _precision(config: TrainConfig, task: Task, model: nn.Module, device: torch.device, listener: Listener) -> Choice:
    if config.precision != "auto":
        return Choice(config.precision, "as set")
    if config.gradient == "numerical":
        return Choice("float64", "auto: finite differences drown in float32's rounding")
    if config.gradient == "chain_rule":
        return Choice("float32", "auto: the chain-rule engine computes in float32 or float64")
    with unmoved(model), listener.phase("timing float32 and bfloat16"):
        first = task.training.batch(np.arange(min(task.micro_batch_size, task.batch_size)), device)
        return choose_precision(model, task.loss, first, device)


def _facts(config: TrainConfig, task: Task) -> dict[str, Any]:
    """What a checkpoint says of its origin."""
    return {
        "config": as_tables(config),
        **task.origin,
        "versions": {name: version(name) for name in ("chainrule", "torch", "numpy", "tokenizers")}
        | {"python": platform.python_version()},
    }


def _announce(job: Job, reasons: Mapping[str, str], listener: Listener) -> None:
    """Say what is trained, and every automatic choice with its reason."""
    config, task = job.config, job.task
    listener.say("model", f"{task.description}: {count(job.model):,} parameters")
    listener.say(
        "update",
        f"{config.optimizer.name}, {config.method}: {plural(task.batch_size, task.example)} of "
        f"{len(task.training):,}; {plural(config.steps, 'step')}",
    )
    listener.say("gradient", f"{config.gradient} on {job.device.type}, {plural(torch.get_num_threads(), 'thread')}")
    listener.say("device", f"{job.device.type}, {reasons['device']}")
    listener.say("memory", f"{plural(task.micro_batch_size, task.example)} at once, {reasons['data.micro_batch_size']}")
    listener.say("kernels", kernels_in_words(job))
    listener.say("precision", f"{config.precision}, {reasons['precision']}")
    listener.say("compiled", f"{'yes' if config.loop.compile == 'on' else 'no'}, {reasons['loop.compile']}")
    listener.say("decay", decay_in_words(job))
    listener.say("validation", validation_in_words(job))


def validation_in_words(job: Job) -> str:
    """On how many examples the loss is measured on the way, and on how many at the end: two figures of one model."""
    task, every = job.task, job.config.loop.evaluate_every
    examples = len(task.validation)
    if not every:
        return f"on all {plural(examples, task.example)} at the end"
    part = min(task.measured, examples)
    some = (
        f"all {plural(examples, task.example)}" if part == examples else f"{part:,} of {plural(examples, task.example)}"
    )
    rest = "" if part == examples else ", evenly spread; the report's on all of them"
    return f"every {plural(every, 'step')} on {some}{rest}"


def decay_in_words(job: Job) -> str:
    """Which parameters decay."""
    config = job.config.optimizer
    chosen = {id(parameter) for parameter in decaying(job.model, config.decay_embeddings)}
    kept = [name for name, parameter in job.model.named_parameters() if id(parameter) not in chosen]
    if not config.weight_decay or not chosen:
        return "none"
    free = f"; not {', '.join(kept[:3])}{f' and {len(kept) - 3} more' if len(kept) > 3 else ''}" if kept else ""
    return f"{config.weight_decay:g} on {plural(len(chosen), 'weight')}{free}"
