"""What a recorded step should have done by its formula, in float64, from the values, gradients and state that it had."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from chainrule.tolerance import unit
from chainrule.update_rules import UpdateRule, claimed_by, rule_of_torch, suffices
from chainrule.update_rules.rule import number
from chainrule.watch.observed import Kept, Observed, StepRecord

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


SAMPLED = 4096  # entries of a large parameter that are looked at, evenly spread
WHOLE = 2**20  # entries up to which a formula that is not elementwise is computed


@dataclass(frozen=True, eq=False)
class Move(Kept):
    """One parameter in one step: an even sample of its entries, if it is large.

    expected  the values after the step by the formula, float64; None if no formula is known
    unmoved   True if the whole parameter is bitwise what it was
    """

    path: str
    record: StepRecord
    settings: Mapping[str, Any]
    before: Tensor
    grad: Tensor
    after: Tensor
    rule: UpdateRule | None
    expected: Tensor | None
    unmoved: bool
    dimensions: int

    @cached_property
    def pulled(self) -> bool:
        """True if its gradient is not zero."""
        return bool(self.grad.any())

    @cached_property
    def size(self) -> Tensor:
        """How far each entry should have moved by the formula, float64; only where the formula is known."""
        assert self.expected is not None
        return (self.expected - self.before.double()).abs()

    def cut(self, tensor: Tensor) -> Tensor:
        """The same entries of another tensor of the parameter's shape."""
        return _sample(tensor)

    @property
    def rate(self) -> float:
        """Learning rate of its group."""
        return number(self.settings, "lr", math.nan)

    @cached_property
    def step(self) -> Tensor:
        """How far it moved, float64."""
        return self.after.double() - self.before.double()

    @cached_property
    def rounding(self) -> Tensor:
        """The rounding error of storing the result, for each entry: u (|before| + |after|)."""
        return unit(self.before.dtype) * (self.before.double().abs() + self.after.double().abs())


def moves(observed: Observed) -> Iterator[Move]:
    """Every parameter of every step that was looked at closely, if it had a dense gradient of finite numbers."""
    for record in observed.steps:
        yield from record.once(_moves)


def _moves(record: StepRecord) -> tuple[Move, ...]:
    pairs = [(path, record.gradients.get(path)) for path in record.before]
    made = [_move(record, path, g) for path, g in pairs if g is not None and _dense(g) and _dense(record.before[path])]
    return tuple(move for move in made if bool(torch.isfinite(move.grad).all() & torch.isfinite(move.before).all()))


def _move(record: StepRecord, path: str, grad: Tensor) -> Move:
    before, after, settings = record.before[path], record.after[path], record.settings[record.group[path]]
    rule, state = _rule(record, settings), _state(record, path)
    computable = rule is not None and state is not None and before.ndim >= rule.dimensions
    expected = None
    if rule is not None and state is not None and computable and (rule.elementwise or before.numel() <= WHOLE):
        cut = _sample if rule.elementwise else _whole
        like = {name: cut(value) if _same(value, before) else value for name, value in state.items()}
        expected = _expected(rule, cut(before), cut(grad), like, settings)
        expected = expected if rule.elementwise else _sample(expected)
    sampled = (_sample(before), _sample(grad), _sample(after))
    unmoved = torch.equal(sampled[0], sampled[2]) and torch.equal(before, after)
    return Move(path, record, settings, *sampled, rule, expected, unmoved, before.ndim)


def _sample(tensor: Tensor) -> Tensor:
    """All entries of a small tensor; of a large one each n-th, n odd, so that it meets every column."""
    flat = tensor.flatten()
    return flat[:: tensor.numel() // SAMPLED | 1] if tensor.numel() > SAMPLED else flat


def _whole(tensor: Tensor) -> Tensor:
    return tensor


def _same(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and parameter.ndim > 0


def _dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.is_floating_point() and tensor.numel() > 0


def _rule(record: StepRecord, settings: Mapping[str, Any]) -> UpdateRule | None:
    rule = rule_of_torch(record.rule, settings) or claimed_by(record.rule.__name__)
    return rule if rule is not None and suffices(rule, settings) else None


def _state(record: StepRecord, path: str) -> Mapping[str, Any] | None:
    """The state before the step; None if the class names its state in its own way."""
    state = record.state_before.get(path) or {}
    if not state and record.number > 1 and record.state_after.get(path):
        return {}  # this parameter's first gradient
    if any(name not in STATE_OF_TORCH for name in state):
        return None
    return dict(state)


def _expected(
    rule: UpdateRule, before: Tensor, grad: Tensor, state: Mapping[str, Any], settings: Mapping[str, Any]
) -> Tensor:
    eps = settings.get("eps")
    if isinstance(eps, tuple) and eps[0] is None:  # Adafactor: the eps of the dtype that the step was made in
        settings = {**settings, "eps": (torch.finfo(before.dtype).eps, eps[1])}
    exact = {name: value.double() if isinstance(value, Tensor) else value for name, value in state.items()}
    return rule.update(before.double(), grad.double(), exact, settings)[0]


def warming_up(observed: Observed, optimizer: str) -> bool:
    """True if the rate of the optimizer rises from step to step: what is small now will not stay small."""
    rates = [max(event.numbers.get("rates") or [0.0]) for event in observed.of("step") if event.who == optimizer]
    return any(later > earlier for earlier, later in itertools.pairwise(rates))
