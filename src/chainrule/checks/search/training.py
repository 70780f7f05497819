"""Short trainings in a copy of the process, with the user's optimizer or another: the losses, and nothing else is kept."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from chainrule.setups import Setup
from chainrule.watch.fork import WorkFailedError, in_a_copy, why_not

BATCHES = 8  # that a training goes round, if the set-up has so many
DIVERGED = 4.0  # times the loss at the beginning: what follows tells nothing more

T = TypeVar("T")
# losses before each update, as shares of that batch's first loss
Losses = list[float]


class NoTrainingError(Exception):
    """The set-up cannot be trained in a copy; the text is a clause that says why."""


def trained(setup: Setup, rates: Sequence[float | None], *, one_batch: bool, adamw: float | None, seed: int) -> Losses:
    """Train for as many updates as there are rates. Dropout is off. Raises NoTrainingError.

    rates      for each update the rate of the group that learns fastest, others in proportion; None leaves them
    one_batch  on the first batch alone
    adamw      rate of an AdamW in place of the user's optimizer; also used if there is none
    """
    return _in_a_copy(partial(_train, setup, list(rates), one_batch=one_batch, adamw=adamw, seed=seed))


def seconds_per_update(setup: Setup) -> float:
    """How long one update takes, by the clock; for choosing how many to make."""
    return _in_a_copy(partial(_timed, setup))


def _in_a_copy(work: Callable[[], T]) -> T:
    if reason := why_not():
        raise NoTrainingError(reason)
    try:
        return in_a_copy(work)
    except WorkFailedError as error:
        raise NoTrainingError(f"the set-up cannot be trained ({str(error).splitlines()[0]})") from error


def _timed(setup: Setup) -> float:
    _train(setup, [None], one_batch=True, adamw=None, seed=0)
    start = time.perf_counter()
    _train(setup, [None], one_batch=True, adamw=None, seed=0)
    return time.perf_counter() - start


def _train(setup: Setup, rates: list[float | None], *, one_batch: bool, adamw: float | None, seed: int) -> Losses:
    torch.manual_seed(seed)
    model = setup.module
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    optimizer = _optimizer(setup, model, adamw)
    shares = _shares(optimizer)
    batches = list(itertools.islice(iter(setup.batches), 1 if one_batch else BATCHES))
    first: dict[int, float] = {}
    losses: Losses = []
    for update, rate in enumerate(rates):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            if rate is not None:
                group["lr"] = rate * share
        place = update % len(batches)
        loss = _update(setup, model, batches[place], optimizer)
        losses.append(loss / (first.setdefault(place, loss) or 1.0))
        if not math.isfinite(losses[-1]) or losses[-1] > DIVERGED:
            break
    return losses


def _optimizer(setup: Setup, model: nn.Module, adamw: float | None) -> Optimizer:
    if len(setup.optimizers) == 1 and adamw is None:
        return setup.optimizers[0]
    return AdamW([p for p in model.parameters() if p.requires_grad], lr=adamw or 1e-3, weight_decay=0.0)


def _shares(optimizer: Optimizer) -> list[float]:
    rates = [float(group.get("lr") or 0.0) for group in optimizer.param_groups]
    largest = max(rates)
    return [rate / largest if largest > 0 else 1.0 for rate in rates]


def _update(setup: Setup, model: nn.Module, batch: Any, optimizer: Optimizer) -> float:
    with torch.enable_grad():
        optimizer.zero_grad()
        loss = setup.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(loss.detach())
