"""Checkpoints: everything that decides the next step, in one folder of safetensors and JSON.

    checkpoints/step-000200/  model.safetensors      parameters by name (a tied one once) and buffers
                              optimizer.safetensors  "parameter name/moment"
                              state.json             step, samples, best, random states, optimizers, scale, settings
                              manifest.json          sha256 of the others, written last

Kept are the last two and the one of the lowest validation loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from chainrule.errors import CheckpointError
from chainrule.train.atomic import read_json, verify_folder, write_folder, write_json
from chainrule.train.randomness import random_state, restore_random_state

FOLDER = "checkpoints"
FORMAT = 2
KEEP = 2


@dataclass
class State:
    """Every variable of the loop that a resumed run must have, besides tensors and random states.

    step       updates made
    samples    examples consumed: with the seed, the position in the data
    terms      of the loss that were seen: tokens, rows, pairs
    best_loss  lowest validation loss so far, nats per token; None before the first measurement
    best_step  updates made when it was measured
    seconds    spent in the loop, all sessions together
    recent     last losses, newest last, for a diagnosis
    stale      measurements since the best one, for early stopping
    waited     the same since the plateau schedule last acted
    reductions of the learning rate by the plateau schedule
    """

    step: int = 0
    samples: int = 0
    terms: int = 0
    best_loss: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    stale: int = 0
    waited: int = 0
    reductions: int = 0


@dataclass(frozen=True)
class Trained:
    """What training changes, besides the state: all tensors of a checkpoint."""

    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    scaler: GradScaler


def save_checkpoint(folder: Path, trained: Trained, state: State, facts: dict[str, Any]) -> Path:
    """Write runs/NAME/checkpoints/step-N and drop older ones. `facts` (JSON-able) are kept for the reader."""
    moments, optimizers = _optimizer_states(trained)
    target = folder / FOLDER / f"step-{state.step:06d}"
    text = {
        "format": FORMAT,
        "state": asdict(state),
        "random": random_state(),
        "optimizers": optimizers,
        "scaler": trained.scaler.state_dict(),
        "threads": torch.get_num_threads(),
        **facts,
    }
    write_folder(
        target,
        {
            "model.safetensors": lambda path: save_file(dict(_tensors(trained.model)), path),
            "optimizer.safetensors": lambda path: save_file(moments, path),
            "state.json": write_json(text),
        },
    )
    _drop_old(folder, state.best_step)
    return target


def load_checkpoint(path: Path, trained: Trained) -> State:
    """Bring all that is trained and the random states to what they were.

    Raises CheckpointError, changing nothing, if the checkpoint is damaged or of another model.
    """
    text = read_state(path)
    moments = load_file(path / "optimizer.safetensors")
    load_weights(path, trained.model)
    for optimizer, saved in zip(trained.optimizers, text["optimizers"], strict=True):
        _restore_optimizer(trained.model, optimizer, moments, saved)
    if trained.scaler.is_enabled():
        trained.scaler.load_state_dict(text["scaler"])
    restore_random_state(text["random"])
    return State(**text["state"])


def load_weights(path: Path, model: nn.Module) -> None:
    """Bring parameters and buffers alone to those of a checkpoint."""
    tensors, own = load_file(path / "model.safetensors"), dict(_tensors(model))
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise CheckpointError(f"{path / 'model.safetensors'} belongs to another model: its names or shapes differ")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after every file was verified."""
    verify_folder(path)
    text: dict[str, Any] = read_json(path / "state.json")
    if text.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {text.get('format')}; this chainrule reads format {FORMAT}")
    return text


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, damaged ones included."""
    return sorted((folder / FOLDER).glob("step-*"), key=step_of)


def step_of(path: Path) -> int:
    """Updates made before a checkpoint, from its name."""
    digits = path.name.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint; None if there is none yet. If it is damaged the error offers an older good one."""
    paths = checkpoints(folder)
    if not paths:
        return None
    try:
        verify_folder(paths[-1])
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_way_out(folder, paths[:-1])}") from None
    return paths[-1]


def best_checkpoint(folder: Path, state: State) -> Path:
    """The checkpoint of the lowest validation loss, which is always kept."""
    return folder / FOLDER / f"step-{state.best_step:06d}"


def _way_out(folder: Path, older: list[Path]) -> str:
    for path in reversed(older):
        try:
            verify_folder(path)
        except CheckpointError:
            continue
        return f"an older good one is there: chainrule train --resume {path}"
    return f"no older good one is there; to start this run again remove {folder / FOLDER}"


def discard_after(folder: Path, step: int) -> int:
    """Remove the checkpoints of later steps, when a run goes on from an older one; returns how many."""
    later = [path for path in checkpoints(folder) if step_of(path) > step]
    for path in later:
        shutil.rmtree(path)
    return len(later)


def _drop_old(folder: Path, best_step: int) -> None:
    for path in checkpoints(folder)[:-KEEP]:
        if step_of(path) != best_step:
            shutil.rmtree(path)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, each once, and the buffers that are saved."""
    saved = model.state_dict(keep_vars=True)
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()
    parameters = {id(parameter) for parameter in model.parameters()}
    for name, value in saved.items():
        if id(value) not in parameters and isinstance(value, Tensor):
            yield name, value.detach()


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Parameter names in the order in which the optimizer numbers them."""
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_states(trained: Trained) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors by "parameter name/moment", and what else each optimizer remembers, as JSON-able data."""
    moments: dict[str, Tensor] = {}
    texts = []
    for optimizer in trained.optimizers:
        packed = optimizer.state_dict()
        names = _names(trained.model, optimizer)
        scalars = {}
        for number, entries in packed["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    moments[f"{names[number]}/{key}"] = value.detach().contiguous()
                else:
                    scalars[f"{names[number]}/{key}"] = value
        texts.append({"parameters": names, "scalars": scalars, "groups": packed["param_groups"]})
    return moments, texts


def _restore_optimizer(
    model: nn.Module, optimizer: Optimizer, moments: dict[str, Tensor], saved: dict[str, Any]
) -> None:
    names = _names(model, optimizer)
    if names != saved["parameters"]:
        raise CheckpointError("the checkpoint's optimizer holds other parameters than this run's")
    numbers = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**moments, **saved["scalars"]}.items():
        name, _, moment = key.rpartition("/")
        if name in numbers:  # of this optimizer
            state.setdefault(numbers[name], {})[moment] = value
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in saved["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
