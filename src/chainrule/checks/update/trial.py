"""A trial of an optimizer: three real steps on a small float64 copy, with made-up gradients, and how well a formula fits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from chainrule.checks.update.small_copy import CannotCopyError, settings_of, small_copy
from chainrule.tolerance import unit
from chainrule.update_rules import UpdateRule

RATES = (0.1, 0.05, 0.2)  # large, so that a misplaced decay shows; changed, so that a rate kept in the momentum shows
DECAY = 0.1
ROUNDING = 16 * unit(
    torch.float32
)  # of |p| + |step|: an optimizer that computes inside in float32 has no wrong formula


@dataclass(frozen=True, eq=False)
class Step:
    """One real step of one parameter."""

    settings: dict[str, Any]
    before: Tensor
    grad: Tensor
    after: Tensor

    @property
    def size(self) -> Tensor:
        """How far each entry moved."""
        return (self.after - self.before).abs()


@dataclass(frozen=True, eq=False)
class Misfit:
    """The entry at which a formula and the real step lie furthest apart.

    shape     of its parameter
    step      number of the step, from 1
    relative  difference as a share of the step
    theirs, ours  how far the optimizer moved it, and how far the formula does
    """

    shape: tuple[int, ...]
    step: int
    relative: float
    theirs: float
    ours: float


# The steps of one parameter, in order.
Track = list[Step]


def tried(optimizer: Optimizer, generator: torch.Generator, *, decay: float | None, plain: bool) -> list[Track]:
    """Three steps of a small copy. Raises CannotCopyError, also if the copy cannot step.

    decay  weight_decay of every group that has one; None leaves the user's own
    plain  Gaussian gradients; else of every size from a tenth of ε up to 1, so that ε shows
    """
    made = small_copy(optimizer, generator)
    tracks: dict[Tensor, Track] = {parameter: [] for group in made.param_groups for parameter in group["params"]}
    for rate in RATES:
        settings = {parameter: _set(group, rate, decay) for group in made.param_groups for parameter in group["params"]}
        for parameter in tracks:
            parameter.grad = _gradient(parameter, settings[parameter], generator, plain=plain)
        before = {parameter: parameter.detach().clone() for parameter in tracks}
        gradients = {parameter: parameter.grad.clone() for parameter in tracks if parameter.grad is not None}
        _step(made)
        for parameter, track in tracks.items():
            track.append(Step(settings[parameter], before[parameter], gradients[parameter], parameter.detach().clone()))
    return list(tracks.values())


def misfit(rule: UpdateRule, tracks: list[Track]) -> Misfit | None:
    """Where the formula fails to give the steps; None if it gives them all."""
    found = [worst for track in tracks if (worst := misfit_of(rule, track)) is not None]
    return max(found, key=lambda worst: worst.relative, default=None)


def misfit_of(rule: UpdateRule, track: Track) -> Misfit | None:
    """The same for one parameter. The formula keeps its own state and starts each step at the real parameter."""
    state: dict[str, Any] = {}
    for number, step in enumerate(track, start=1):
        new, state = rule.update(step.before, step.grad, state, step.settings)
        if not fits(rule, step.before, step.after, new):
            return _worst(number, step, new)
    return None


def fits(rule: UpdateRule, before: Tensor, after: Tensor, new: Tensor) -> bool:
    """True if the formula's result is the real one but for rounding, or within the rule's own resolution."""
    if rule.resolution:
        return bool((new - after).norm() <= rule.resolution * (new - before).norm())
    return bool(((new - after).abs() <= ROUNDING * (before.abs() + (after - before).abs())).all())


def _worst(number: int, step: Step, new: Tensor) -> Misfit:
    theirs, ours = step.after - step.before, new - step.before
    relative = (theirs - ours).abs() / torch.maximum(theirs.abs(), ours.abs()).clamp(min=ROUNDING)
    place = int(relative.nan_to_num(nan=torch.inf).argmax())
    entry = [float(t.flatten()[place]) for t in (relative, theirs, ours)]
    return Misfit(tuple(step.before.shape), number, *entry)


def _set(group: dict[str, Any], rate: float, decay: float | None) -> dict[str, Any]:
    """Sets the group's rate and decay; what the group then says, copied."""
    group["lr"] = torch.full_like(group["lr"], rate) if isinstance(group.get("lr"), Tensor) else rate
    if decay is not None and "weight_decay" in group:
        group["weight_decay"] = decay
    return settings_of(group)


def _gradient(parameter: Tensor, settings: dict[str, Any], generator: torch.Generator, *, plain: bool) -> Tensor:
    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if plain:
        return noise
    eps = settings.get("eps")
    smallest = eps / 10 if isinstance(eps, float) and 0 < eps < 1 else 1e-9
    size = smallest ** torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    return size * noise.sign()


def _step(optimizer: Optimizer) -> None:
    try:
        optimizer.step()
    except Exception as error:  # a user's class may need what a copy has not: a closure, a process group
        name = type(optimizer).__name__
        raise CannotCopyError(f"a copy of {name} cannot step ({type(error).__name__}: {error})") from error
