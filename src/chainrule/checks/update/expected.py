"""What a recorded step should have done by its formula, in float64, from the values, gradients and state that it had."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chainrule.tolerance import unit
from chainrule.update_rules import UpdateRule, claimed_by, rule_of_torch
from chainrule.watch.observed import Observed, StepRecord

STATE_OF_TORCH = frozenset(
    (
        "step",
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "sum",
        "row_var",
        "col_var",
        "variance",
    )
)


@dataclass(frozen=True, eq=False)
class Move:
    """One parameter in one step.

    expected  the value after the step by the formula, float64; None if no formula is known
    """

    path: str
    record: StepRecord
    settings: Mapping[str, Any]
    before: Tensor
    grad: Tensor
    after: Tensor
    rule: UpdateRule | None
    expected: Tensor | None

    @property
    def rate(self) -> float:
        """Learning rate of its group."""
        return float(self.settings.get("lr", float("nan")))

    @property
    def step(self) -> Tensor:
        """How far it moved, float64."""
        return self.after.double() - self.before.double()

    @property
    def rounding(self) -> Tensor:
        """The rounding error of storing the result, for each entry: u (|before| + |after|)."""
        return unit(self.before.dtype) * (self.before.double().abs() + self.after.double().abs())


def moves(observed: Observed) -> Iterator[Move]:
    """Every parameter of every step that was looked at closely, if it had a dense gradient of finite numbers."""
    for record in observed.steps:
        for path in record.before:
            grad, before = record.gradients.get(path), record.before[path]
            if grad is None or not _usable(grad) or not _usable(before):
                continue
            settings = record.settings[record.group[path]]
            rule = _rule(record, settings)
            state = _state(record, path)
            expected = None if rule is None or state is None else _expected(rule, before, grad, state, settings)
            yield Move(path, record, settings, before, grad, record.after[path], rule, expected)


def _usable(tensor: Tensor) -> bool:
    dense = tensor.layout is torch.strided and tensor.is_floating_point() and tensor.numel() > 0
    return dense and bool(torch.isfinite(tensor).all())


def _rule(record: StepRecord, settings: Mapping[str, Any]) -> UpdateRule | None:
    rule = rule_of_torch(record.rule, settings) or claimed_by(record.rule.__name__)
    complete = rule is not None and all(name in settings for name in rule.needs)
    return rule if complete else None


def _state(record: StepRecord, path: str) -> Mapping[str, Any] | None:
    """The state before the step in float64; None if the class names its state in its own way."""
    state = record.state_before.get(path) or {}
    if not state and record.number > 1 and record.state_after.get(path):
        return {}  # this parameter's first gradient
    if any(name not in STATE_OF_TORCH for name in state):
        return None
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in state.items()}


def _expected(
    rule: UpdateRule, before: Tensor, grad: Tensor, state: Mapping[str, Any], settings: Mapping[str, Any]
) -> Tensor | None:
    if before.ndim < rule.dimensions:
        return None
    eps = settings.get("eps")
    if isinstance(eps, tuple) and eps[0] is None:  # Adafactor: the eps of the dtype that the step was made in
        settings = {**settings, "eps": (torch.finfo(before.dtype).eps, eps[1])}
    return rule.update(before.double(), grad.double(), state, settings)[0]


def warming_up(observed: Observed, optimizer: str) -> bool:
    """True if the rate of the optimizer rises from step to step: what is small now will not stay small."""
    rates = [max(event.numbers.get("rates") or [0.0]) for event in observed.of("step") if event.who == optimizer]
    return any(later > earlier for earlier, later in itertools.pairwise(rates))
