"""Configuration and data to the objects that train: device, model, precision, loss, optimizer."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from chainrule.data.tokenizer import fingerprint
from chainrule.errors import ConfigError
from chainrule.models.transformer import Transformer, next_token_loss
from chainrule.train.checkpoint import State
from chainrule.train.config import Device, TrainConfig
from chainrule.train.engine import Engine
from chainrule.train.loop import Job, micro_batches
from chainrule.train.optimizers import count, make_optimizer
from chainrule.train.precision import Choice, choose_precision, in_precision
from chainrule.train.prepare import Prepared
from chainrule.train.randomness import preserved_randomness
from chainrule.train.records import Listener, plural
from chainrule.train.run_folder import as_tables


def build_job(
    config: TrainConfig, folder: Path, data: Prepared, engine: Engine, bigram_loss: float, listener: Listener
) -> tuple[Job, Choice]:
    """Make what the loop works with; the job's configuration has its automatic choices resolved."""
    device = choose_device(config)
    model = build_model(config, data.vocabulary).to(device)
    if config.precision == "float64" or (config.precision == "auto" and config.gradient == "numerical"):
        model.double()
    job = Job(
        config=config,
        model=model,
        optimizer=make_optimizer(model, config.optimizer),
        loss=next_token_loss,
        engine=engine,
        training=data.training,
        validation=data.validation,
        device=device,
        folder=folder,
        bigram_loss=bigram_loss,
        facts={},
    )
    choice = _precision(job, listener)
    config = replace(config, precision=choice.precision, device=_resolved_device(config))
    job = replace(
        job, config=config, loss=in_precision(next_token_loss, choice.precision, device), facts=_facts(config, data)
    )
    _announce(job, data, choice, listener)
    return job, choice


def choose_device(config: TrainConfig) -> torch.device:
    """The device asked for; auto takes cuda if there is one. Raises ConfigError if it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = _resolved_device(config)
    if not available[name]:
        raise ConfigError(f"device is {name!r}: this machine, or this build of torch, has none; take --device cpu")
    return torch.device(name)


def _resolved_device(config: TrainConfig) -> Device:
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def build_model(config: TrainConfig, vocabulary: int) -> Transformer:
    """The Transformer, its weights drawn by a generator of its own from the run's seed."""
    return Transformer(
        vocabulary=vocabulary,
        layers=config.model.layers,
        heads=config.model.heads,
        hidden=config.model.hidden,
        context=config.model.context,
        dropout=config.model.dropout,
        tied=config.model.tied,
        generator=torch.Generator().manual_seed(config.seed),
    )


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


def _facts(config: TrainConfig, data: Prepared) -> dict[str, Any]:
    """What a checkpoint says of its origin."""
    return {
        "config": as_tables(config),
        "tokenizer": fingerprint(data.tokenizer),
        "versions": {name: version(name) for name in ("chainrule", "torch", "numpy", "tokenizers")}
        | {"python": platform.python_version()},
    }


def _announce(job: Job, data: Prepared, choice: Choice, listener: Listener) -> None:
    """Say what is trained, and every automatic choice with its reason."""
    config, model, windows = job.config, job.config.model, job.batch_size
    listener.say(
        "model",
        f"Transformer, {model.layers} layers, {model.heads} heads, {model.hidden} hidden, context {model.context}: "
        f"{count(job.model):,} parameters",
    )
    listener.say(
        "update",
        f"{config.optimizer.name}, {config.method}: {plural(windows, 'window')} of {len(data.training):,}, "
        f"{windows * model.context:,} tokens; {plural(config.steps, 'step')}",
    )
    listener.say("gradient", f"{config.gradient} on {job.device.type}, {plural(torch.get_num_threads(), 'thread')}")
    listener.say("precision", f"{choice.precision}, {choice.reason}")
