"""What an optimizer does to one weight, update by update: its gradient, what is remembered of it, the step, the new value.

The gradients are the chain rule's in float64, on one batch again and again, its random draws held; the memory and the step
are the optimizer's reference formula (`update_rules`); beside it goes the optimizer's own step, on a copy.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.autodiff import value_and_grad
from chainrule.errors import SetupError
from chainrule.graph import Graph
from chainrule.update_rules import UpdateRule, claimed_by, rule_of_torch
from chainrule.update_rules.adam import corrected_first, corrected_second

Index = tuple[int, ...]
# what torch calls it -> what the formula calls it
SYMBOLS = MappingProxyType(
    {"exp_avg": "m", "exp_avg_sq": "v", "momentum_buffer": "b", "square_avg": "s", "sum": "s", "variance": "v"}
)
CORRECTED = MappingProxyType({"m": corrected_first, "v": corrected_second})


@dataclass(frozen=True)
class Update:
    """One update of one entry of a parameter; all of it before rounding to the parameter's own dtype.

    loss, gradient  before the update
    memory          what is remembered of the entry afterwards, by the formula's symbols; m̂ and v̂ are Adam's, corrected
    change, value   by the formula
    real            the value by the optimizer's own step; None if it cannot be copied
    """

    number: int
    loss: float
    gradient: float
    memory: Mapping[str, float]
    change: float
    value: float
    real: float | None


@dataclass(frozen=True)
class Held:
    """A parameter as the optimizer holds it: the rule and the settings of its group, what is remembered, its place."""

    rule: UpdateRule
    settings: Mapping[str, Any]
    state: Mapping[str, Any]
    place: int


def held_parameters(model: nn.Module, optimizer: Optimizer) -> dict[str, Held]:
    """Every parameter of the model that the optimizer holds, by its path.

    Raises SetupError if no reference formula is known of the optimizer.
    """
    paths = {id(parameter): path for path, parameter in model.named_parameters()}
    held: dict[str, Held] = {}
    place = 0
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        rule = rule_of_torch(type(optimizer), settings) or claimed_by(type(optimizer).__name__)
        if rule is None:
            raise SetupError(f"no reference formula is known of {type(optimizer).__name__}: it cannot be explained")
        for parameter in group["params"]:
            if id(parameter) in paths:
                state = {key: _exact(value) for key, value in optimizer.state.get(parameter, {}).items()}
                held[paths[id(parameter)]] = Held(rule, settings, state, place)
            place += 1
    return held


def follow(
    graph: Graph, model: nn.Module, optimizer: Optimizer, path: str, entry: Index, steps: int
) -> Iterator[Update]:
    """Make `steps` updates of the whole model on copies, and tell those of one entry.

    graph  of the loss on one batch, in float64
    """
    held = held_parameters(model, optimizer)
    if path not in held:
        raise SetupError(f"the optimizer does not hold {path}: it is never updated")
    values = {leaf.path: leaf.value for leaf in graph.parameters.values()}
    names = {leaf.path: leaf.name for leaf in graph.parameters.values()}
    states: dict[str, Mapping[str, Any]] = {name: one.state for name, one in held.items()}
    real = _exact_copy(optimizer)
    for number in range(1, steps + 1):
        loss, gradients = value_and_grad(graph, {names[name]: value for name, value in values.items()})
        before = values[path][entry]
        for name, one in held.items():
            if name in gradients:
                values[name], states[name] = one.rule.update(values[name], gradients[name], states[name], one.settings)
        after = values[path][entry]
        yield Update(
            number=number,
            loss=float(loss),
            gradient=float(gradients[path][entry]),
            memory=dict(_memory(states[path], held[path].settings, values[path].shape, entry)),
            change=float(after - before),
            value=float(after),
            real=_real_step(real, held, gradients, path, entry),
        )


def formula(rule: UpdateRule) -> list[str]:
    """The formula's lines, from the page of its file."""
    page = sys.modules[rule.update.__module__].__doc__ or ""
    return [line.strip() for line in page.splitlines()[1:] if line.startswith("    ")]


def _memory(
    state: Mapping[str, Any], settings: Mapping[str, Any], shape: torch.Size, entry: Index
) -> Iterator[tuple[str, float]]:
    """What is kept of this entry alone; what is kept of whole rows and columns is left out."""
    of_adam = "betas" in settings and "exp_avg_sq" in state
    for key, symbol in SYMBOLS.items():
        value = state.get(key)
        if isinstance(value, Tensor) and value.shape == shape:
            yield symbol, float(value[entry])
            if of_adam and symbol in CORRECTED:
                yield f"{symbol}̂", float(CORRECTED[symbol](state, settings)[entry])


def _exact_copy(optimizer: Optimizer) -> Optimizer | None:
    """The optimizer over float64 copies of its parameters; None if it does not let itself be copied."""
    try:
        made = copy.deepcopy(optimizer)
    except Exception:  # whatever a user's class does when it is copied
        return None
    with torch.no_grad():
        for parameter in _parameters(made):
            parameter.data = parameter.data.double()
            parameter.grad = None
            made.state[parameter] = {key: _exact(value) for key, value in made.state.get(parameter, {}).items()}
            if not made.state[parameter]:
                del made.state[parameter]
    return made


def _real_step(
    optimizer: Optimizer | None, held: Mapping[str, Held], gradients: Mapping[str, Tensor], path: str, entry: Index
) -> float | None:
    if optimizer is None:
        return None
    parameters = _parameters(optimizer)
    for name, one in held.items():
        if name in gradients:
            parameters[one.place].grad = gradients[name].clone()
    optimizer.step()
    return float(parameters[held[path].place].detach()[entry])


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _exact(value: Any) -> Any:
    """A state tensor in float64, apart from the original."""
    return (
        value.detach().double()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim
        else copy.copy(value)
    )
