"""Is the run well? Losses and the gradient's profile over depth, looked at every few steps: where, since when, what to try.

    level of a layer    s = |dL/dW| · |W|    without unit, and level over the depth of a network that scales its signal rightly
    diverges            the mean of the last losses is twice the lowest such mean, and above it by more than they scatter
    explodes            the gradient's norm is 20 times its median of before, in most of the last steps
    vanishes            s of the first layer is a thousandth of the last one's, in three looks in a row

It only tells. What is not finite is refused elsewhere, before an update.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

import torch
from torch import nn
from torch.optim import Optimizer

from chainrule.train.records import StepRecord

EVERY = 10  # steps between two looks; a look takes two norms of each parameter
WINDOW = 20
MEMORY = 200
RISE, GROWTH, SHRINK = 2.0, 20.0, 1e-3
LAYERS, LOOKS = 4, 3
_LAYER = re.compile(r"(?:[^.\d][^.]*\.)*\d+(?=\.|$)|[^.]+")

Profile = Mapping[str, float]


@dataclass(frozen=True)
class Symptom:
    """One thing that is wrong: `kind` is told once."""

    kind: str
    text: str


class Health:
    """A watcher of the loop: called after each update, it tells each kind of symptom once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._records: deque[StepRecord] = deque(maxlen=MEMORY)
        self._lowest: tuple[float, int] | None = None
        self._profiles: deque[tuple[int, Profile]] = deque(maxlen=LOOKS)

    def __call__(self, record: StepRecord, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:  # noqa: ARG002
        """Hear of an update, while its gradients are still there."""
        self._records.append(record)
        if record.step % EVERY:
            return
        self._profiles.append((record.step, profile(model)))
        records = list(self._records)
        symptoms = (diverges(records, self._lowest), explodes(records, self._profiles), vanishes(self._profiles))
        self._lowest = lowest_mean(records, self._lowest)
        for symptom in symptoms:
            if symptom and symptom.kind not in self._told:
                self._told.add(symptom.kind)
                self._tell(symptom.text)


@torch.no_grad()
def profile(model: nn.Module) -> dict[str, float]:
    """s of each layer, in the order in which the model defines them: "blocks.0", "blocks.1", "head" ..."""
    named = [(name, p) for name, p in model.named_parameters() if p.grad is not None and p.ndim >= 2]
    weights = torch._foreach_norm([p for _, p in named]) if named else []
    grads = torch._foreach_norm([p.grad for _, p in named if p.grad is not None]) if named else []
    squares: dict[str, tuple[float, float]] = {}
    for (name, _), weight, grad in zip(named, weights, grads, strict=True):
        layer = layer_of(name)
        w, g = squares.get(layer, (0.0, 0.0))
        squares[layer] = (w + float(weight) ** 2, g + float(grad) ** 2)
    return {layer: math.sqrt(w * g) for layer, (w, g) in squares.items()}


def layer_of(path: str) -> str:
    """ "blocks.3.mlp.expand.weight" is of "blocks.3", "head.weight" of "head"."""
    found = _LAYER.match(path)
    return found.group() if found else path


def lowest_mean(records: Sequence[StepRecord], before: tuple[float, int] | None) -> tuple[float, int] | None:
    """(loss, its step): of the very first step, or the mean of the lowest window so far and its last step."""
    if len(records) < WINDOW:
        return before or (records[0].loss, records[0].step)
    now = (mean(record.loss for record in records[-WINDOW:]), records[-1].step)
    return now if before is None or now[0] <= before[0] else before


def diverges(records: Sequence[StepRecord], lowest: tuple[float, int] | None) -> Symptom | None:
    """The loss has risen far above what it was."""
    if lowest is None or len(records) < WINDOW:
        return None
    losses = [record.loss for record in records[-WINDOW:]]
    now, (low, step) = mean(losses), lowest
    if not (now > RISE * abs(low) and now - low > 3 * stdev(losses)):
        return None
    return Symptom(
        "diverges",
        f"the loss diverges since step {step}: {low:.4g} then, {now:.4g} now (means of {WINDOW} steps). Lower "
        f"--optimizer.learning-rate (now {records[-1].learning_rate:.2g}), lengthen --schedule.warmup-steps, or set "
        "--optimizer.clip-norm",
    )


def _norm(record: StepRecord) -> float:
    """0 where there is none, so that nothing is said of it."""
    return record.gradient_norm or 0.0


def explodes(records: Sequence[StepRecord], profiles: Sequence[tuple[int, Profile]]) -> Symptom | None:
    """The gradient has become many times larger than it was."""
    recent, earlier = list(records[-EVERY:]), list(records[:-EVERY])
    if len(earlier) < WINDOW:
        return None
    usual = median(_norm(record) for record in earlier)
    large = [record for record in recent if _norm(record) > GROWTH * usual > 0]
    if 2 * len(large) <= len(recent):
        return None
    layers = profiles[-1][1] if profiles else {}
    where = f", largest in {max(layers, key=layers.__getitem__)}; by depth: {in_words(layers)}" if layers else ""
    return Symptom(
        "explodes",
        f"the gradient explodes since step {large[0].step}: norm {_norm(large[-1]):.3g}, usually {usual:.3g}{where}. "
        "Set --optimizer.clip-norm, lower --optimizer.learning-rate, or normalise each layer",
    )


def vanishes(profiles: Sequence[tuple[int, Profile]]) -> Symptom | None:
    """The first layers get next to nothing of the gradient, look after look."""
    if len(profiles) < LOOKS or not all(_fades(layers) for _, layers in profiles):
        return None
    step, _ = profiles[0]
    layers = profiles[-1][1]
    return Symptom(
        "vanishes",
        f"the gradient vanishes on its way down, since step {step} or before; |gradient|·|weight| by depth: "
        f"{in_words(layers)}. Use relu, gelu or silu in place of sigmoid or tanh, He or Xavier initialisation, or a "
        "normalisation in each layer",
    )


def _fades(layers: Profile) -> bool:
    """The level falls by a thousand from the last layer to the first, and the earlier half is the lower one."""
    levels = list(layers.values())
    if len(levels) < LAYERS or not levels[-1] > 0:
        return False
    half = len(levels) // 2
    return levels[0] < SHRINK * levels[-1] and max(levels[:half]) < min(levels[half:])


def in_words(layers: Profile) -> str:
    """The levels of at most six layers, first and last among them."""
    names = list(layers)
    chosen = names if len(names) <= 6 else [names[round(k * (len(names) - 1) / 5)] for k in range(6)]
    return ", ".join(f"{name} {layers[name]:.1e}" for name in chosen)
