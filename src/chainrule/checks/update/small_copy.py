"""A copy of an optimizer that holds small float64 parameters of the user's shapes, so that its real step can be tried.

Everything else of it is as the user made it: its class, its groups, whatever attributes its class gave it. Nothing is
shared with the original, and its state is that before the first step.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from chainrule.update_rules import OF_TORCH

LARGEST = (
    9216  # entries of a tensor; enough to reach past the blocks of 4,096 in which some optimizers keep their state
)
PER_KIND = 3  # shapes tried for each number of dimensions in each group


class CannotCopyError(Exception):
    """The optimizer cannot be copied; the text is a clause that says why."""


def small_copy(optimizer: Optimizer, generator: torch.Generator) -> Optimizer:
    """The optimizer over small random stand-ins for some of its parameters. Raises CannotCopyError."""
    chosen = {id(p): _stand_in(p) for group in _distinct_groups(optimizer) for p in _chosen(group["params"])}
    if not chosen:
        raise CannotCopyError("the optimizer holds no dense parameter of real numbers")
    for parameter in chosen.values():
        parameter.data.normal_(generator=generator)
    try:
        return _copied(optimizer, chosen)
    except Exception as error:  # whatever a user's class does when it is copied
        reason = f"{type(optimizer).__name__} cannot be copied ({type(error).__name__}: {error})"
        raise CannotCopyError(reason) from error


def settings_of(group: dict[str, Any]) -> dict[str, Any]:
    """A param_group without its parameters."""
    return {key: value for key, value in group.items() if key != "params"}


def _distinct_groups(optimizer: Optimizer) -> Iterator[dict[str, Any]]:
    """One group of each kind of settings: a rate or a decay of its own makes no other formula."""
    seen = set()
    for group in optimizer.param_groups:
        numbers = ("lr", "initial_lr", "weight_decay")
        kind = repr(sorted((key, str(value)) for key, value in settings_of(group).items() if key not in numbers))
        if kind not in seen:
            seen.add(kind)
            yield group


def _chosen(parameters: list[Tensor]) -> Iterator[Tensor]:
    """The smallest, one in the middle and the largest shape of each number of dimensions."""
    shapes: dict[int, dict[tuple[int, ...], Tensor]] = {}
    for parameter in sorted(parameters, key=lambda p: p.numel()):
        if parameter.is_floating_point() and parameter.layout is torch.strided and parameter.numel() > 0:
            shapes.setdefault(parameter.ndim, {}).setdefault(_small(parameter.shape), parameter)
    for of_kind in shapes.values():
        candidates = list(of_kind.values())
        places = sorted({round(i * (len(candidates) - 1) / (PER_KIND - 1)) for i in range(PER_KIND)})
        yield from (candidates[place] for place in places)


def _small(shape: torch.Size) -> tuple[int, ...]:
    sizes = list(shape)
    while math.prod(sizes) > LARGEST:
        longest = sizes.index(max(sizes))
        sizes[longest] = (sizes[longest] + 1) // 2
    return tuple(sizes)


def _stand_in(parameter: Tensor) -> Parameter:
    """Zeros of the parameter's shape, cut; a transposed matrix stays a transposed one."""
    shape = _small(parameter.shape)
    transposed = parameter.ndim == 2 and not parameter.is_contiguous()
    zeros = torch.zeros(shape[::-1] if transposed else shape, dtype=torch.float64)
    return Parameter(zeros.mT if transposed else zeros)


def _copied(optimizer: Optimizer, chosen: dict[int, Parameter]) -> Optimizer:
    if type(optimizer) in OF_TORCH or optimizer.state:  # only the constructor can start a state afresh
        known = set(inspect.signature(type(optimizer).__init__).parameters)
        over = {"capturable": False, "differentiable": False}  # these are for other devices, and change no number
        given = {key: value for key, value in (optimizer.defaults | over).items() if key in known}
        made = type(optimizer)(_groups(optimizer, chosen, over), **given)
    else:
        made = _attribute_by_attribute(optimizer, chosen)
    return made


def _groups(optimizer: Optimizer, chosen: dict[int, Parameter], over: dict[str, Any]) -> list[dict[str, Any]]:
    groups = []
    for group in optimizer.param_groups:
        parameters = [chosen[id(parameter)] for parameter in group["params"] if id(parameter) in chosen]
        changed = {key: value for key, value in over.items() if key in group}
        if parameters:
            groups.append({**copy.deepcopy(settings_of(group)), **changed, "params": parameters})
    return groups


def _attribute_by_attribute(optimizer: Optimizer, chosen: dict[int, Parameter]) -> Optimizer:
    """Optimizer's own deepcopy keeps only groups and state; a class may keep more in attributes."""
    made = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(optimizer): made}
    for group in optimizer.param_groups:  # what was not chosen becomes one zero, in case an attribute lists it
        memo |= {id(p): Parameter(torch.zeros((1,) * p.ndim)) for p in group["params"]}
    memo |= chosen
    for name, value in vars(optimizer).items():
        if name.endswith("_hooks") and isinstance(value, dict):
            vars(made)[name] = OrderedDict()
        elif not hasattr(value, "_wrapped_by_lr_sched"):  # a scheduler's counter around `step` of the original
            vars(made)[name] = copy.deepcopy(value, memo)
    kept = {id(parameter) for parameter in chosen.values()}
    for group in made.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in kept]
    made.param_groups[:] = [group for group in made.param_groups if group["params"]]
    return made
