"""How a derivative rule is written and registered: one plain function per unit formula, checked when it is registered.

In a rule, `g` is dL/dy and `y` the op's output; the other parameters are arguments of the op by their schema names, with an
optional shape suffix (`self_NK`), and only those that the formula needs. For an op with several outputs `g` and `y` are
tuples; `g` holds zeros where no gradient arrives. The engine un-broadcasts, casts, accumulates and sums tied parameters.
The first docstring line is the formula, which `explain` prints.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from torch._ops import OpOverload

from chainrule.errors import RuleError

F = TypeVar("F", bound=Callable[..., Any])
_SUFFIX = re.compile(r"_[A-Z0-9]+$")


@dataclass(frozen=True, eq=False)
class Rule:
    """The derivative of one unit formula.

    vjp        (g, y, **arguments) -> {argument name: gradient}, a list of gradients for a list argument
    local      of an elementwise op: (y, **arguments) -> dy/dself, from which `vjp` follows; None otherwise
    jvp        (y, t, **arguments) -> tangent of y, where t maps argument names to tangents; None if not given
    nondiff    tensor arguments that get no gradient (indices, masks, targets)
    kink       (**arguments) -> mask of the entries at which the derivative jumps
    frozen     (at, **arguments) -> y with the branch taken at the arguments `at` (a mapping): smooth, for numdiff
    domain     (**arguments) -> mask of the entries for which the formula is defined
    linear_in  arguments in which y is linear (with the others held)
    abs_bound  (g, y, **arguments) -> {argument: bound}: the rule on absolute values, to scale rounding errors
    """

    op: OpOverload
    formula: str
    vjp: Callable[..., Mapping[str, Any]]
    local: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None
    nondiff: frozenset[str] = frozenset()
    kink: Callable[..., Any] | None = None
    frozen: Callable[..., Any] | None = None
    domain: Callable[..., Any] | None = None
    linear_in: frozenset[str] = frozenset()
    abs_bound: Callable[..., Mapping[str, Any]] | None = None

    def gradients(self, g: Any, y: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The vector-Jacobian product, given all of the op's arguments by name."""
        gradients: Mapping[str, Any] = call_by_name(self.vjp, arguments, g, y)
        return gradients


class Rules:
    """The rules of one family, one table per file; `derivatives/__init__` merges and publishes them read-only."""

    def __init__(self) -> None:
        self._rules: dict[OpOverload, Rule] = {}
        self._flat: set[OpOverload] = set()

    def vjp(self, *ops: OpOverload, **declared: Any) -> Callable[[F], F]:
        """Register (g, y, arguments) -> {argument name: gradient}. `declared` are further fields of `Rule`."""

        def register(function: F) -> F:
            for op in ops:
                self._add(op, function, first=("g", "y"), vjp=function, **declared)
            return function

        return register

    def local(self, *ops: OpOverload, **declared: Any) -> Callable[[F], F]:
        """Register (y, self, ...) -> dy/dself of an elementwise op of one tensor: dL/dself = g · dy/dself."""

        def register(function: F) -> F:
            def vjp(g: Any, y: Any, **arguments: Any) -> Mapping[str, Any]:
                return {"self": g * call_by_name(function, arguments, y)}

            def jvp(y: Any, t: Mapping[str, Any], **arguments: Any) -> Any:
                return t["self"] * call_by_name(function, arguments, y)

            for op in ops:
                self._add(op, function, first=("y",), vjp=vjp, local=function, jvp=jvp, **declared)
            return function

        return register

    def flat(self, *ops: OpOverload) -> None:
        """Declare that the output's derivative is zero or undefined everywhere (comparisons, argmax, indices)."""
        self._flat.update(ops)

    def _add(self, op: OpOverload, function: Callable[..., Any], *, first: tuple[str, ...], **fields: Any) -> None:
        if op in self._rules:
            raise RuleError(f"{op} already has a rule: {self._rules[op].vjp.__name__}")
        check_signature(op, function, first)
        fields["nondiff"] = frozenset(fields.get("nondiff", ()))
        fields["linear_in"] = frozenset(fields.get("linear_in", ()))
        self._rules[op] = Rule(op=op, formula=_formula(op, function), **fields)


def merge(tables: Iterable[Rules]) -> tuple[Mapping[OpOverload, Rule], frozenset[OpOverload]]:
    """All rules and all flat ops of the families, read-only. Raises RuleError if two families claim one op."""
    rules: dict[OpOverload, Rule] = {}
    flat: set[OpOverload] = set()
    for table in tables:
        for op, rule in table._rules.items():
            if op in rules:
                raise RuleError(f"{op} already has a rule: {rules[op].vjp.__name__}")
            rules[op] = rule
        flat |= table._flat
    if both := flat & rules.keys():
        raise RuleError(f"{sorted(map(str, both))}: declared flat and given a rule; take one of them away")
    return MappingProxyType(rules), frozenset(flat)


def schema_name(parameter: str) -> str:
    """The schema's name for a rule's parameter: the shape suffix taken off (self_NK -> self)."""
    return _SUFFIX.sub("", parameter)


def parameters_of(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """(parameter, schema name) of a rule's function; the ones it takes by ** are left out."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            yield parameter.name, schema_name(parameter.name)


def check_signature(op: OpOverload, function: Callable[..., Any], first: tuple[str, ...]) -> None:
    """Raise RuleError unless the function takes `first` and then arguments of the op's schema by their names."""
    schema = [argument.name for argument in op._schema.arguments]
    names = [name for _, name in parameters_of(function)]
    wrong = [name for name in names[len(first) :] if name not in schema]
    if tuple(names[: len(first)]) != first or wrong:
        raise RuleError(f"{op}: the rule takes {names}, expected {list(first)} and then names out of {schema}")


def _formula(op: OpOverload, function: Callable[..., Any]) -> str:
    lines = (function.__doc__ or "").strip().splitlines()
    if not lines:
        raise RuleError(f"{op}: write the formula as the first docstring line; explain prints it")
    return lines[0]


def call_by_name(function: Callable[..., Any], arguments: Mapping[str, Any], *first: Any) -> Any:
    """Call function(*first, ...) with those of the op's arguments that it names."""
    plan = _plan(function, len(first))
    if plan is None:
        return function(*first, **arguments)
    return function(*first, **{parameter: arguments[name] for parameter, name in plan})


@cache  # inspecting a signature costs 20 µs, more than many an op
def _plan(function: Callable[..., Any], skip: int) -> tuple[tuple[str, str], ...] | None:
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    return tuple(parameters_of(function))[skip:]
