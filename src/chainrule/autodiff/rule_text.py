"""The source text of derivative rules, with the helpers that they call, as Python that needs nothing but torch."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

from torch._ops import OpOverload

from chainrule.derivatives.rule import Rule

HOME = "chainrule."


def rule_function(rule: Rule) -> Callable[..., Any]:
    """The function that its author wrote: dy/dself of a local rule, the vjp of any other."""
    return rule.local if rule.local is not None else rule.vjp


class RuleText:
    """Collects the texts of rules and everything they name, each once, and gives every rule a name of its own."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._imports: set[str] = {"import torch", "from torch import Tensor"}
        self._names: dict[int, str] = {}

    def add(self, rule: Rule) -> str:
        """Add a rule; returns the name under which the text defines it."""
        return self._function(rule_function(rule))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "\n\n\n".join(self._texts.values())

    @property
    def imports(self) -> str:
        """The import lines that the texts need."""
        return "\n".join(sorted(self._imports))

    def _function(self, function: FunctionType) -> str:
        return self._definition(function, {**function.__globals__, **_closure(function)})

    def _definition(self, thing: FunctionType | type, scope: dict[str, Any]) -> str:
        """Write out a function or class, after all that it names; returns its name in the text."""
        if id(thing) in self._names:
            return self._names[id(thing)]
        name = self._names[id(thing)] = self._free(thing.__name__)
        tree = _definition(thing)
        renamed = {thing.__name__: name} | self._needs(tree, scope)
        self._texts[name] = ast.unparse(_Rename(renamed).visit(tree))
        return name

    def _needs(self, tree: ast.AST, scope: dict[str, Any]) -> dict[str, str]:
        renamed = {}
        for name in _names(tree):
            if name in scope and (text := self._need(name, scope[name])) != name:
                renamed[name] = text
        return renamed

    def _need(self, name: str, value: Any) -> str:
        """Make sure that `name` is defined in the text as it is in the rule's file; returns the name to write."""
        if name == "aten":  # a namespace, not a module that could be imported
            self._texts.setdefault(name, "aten = torch.ops.aten")
        elif isinstance(value, ModuleType):
            self._imports.add(f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}")
        elif isinstance(value, OpOverload):
            return f"torch.ops.{value}"
        elif isinstance(value, FunctionType) and value.__module__.startswith(HOME):
            return self._function(value)
        elif isinstance(value, type) and value.__module__.startswith(HOME):
            return self._definition(value, vars(sys.modules[value.__module__]))
        elif isinstance(value, (bool, int, float, str, tuple, type(None))):
            self._texts.setdefault(name, f"{name} = {value!r}")
        elif (module := getattr(value, "__module__", None)) and not module.startswith(HOME):
            self._imports.add(f"from {module} import {name}")
        return name

    def _free(self, name: str) -> str:
        taken = set(self._names.values()) | self._texts.keys()
        return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 1000))) if n not in taken)


class _Rename(ast.NodeTransformer):
    def __init__(self, renamed: dict[str, str]) -> None:
        self._renamed = renamed

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._renamed and self._renamed[node.id] != node.id:
            return ast.copy_location(ast.parse(self._renamed[node.id], mode="eval").body, node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._renamed.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._renamed.get(node.name, node.name)
        return self.generic_visit(node)


def _definition(thing: FunctionType | type) -> ast.FunctionDef | ast.ClassDef:
    """The syntax tree of a function or class; functions without decorators and annotations, which would need imports."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    assert isinstance(tree, (ast.FunctionDef, ast.ClassDef))
    if isinstance(tree, ast.FunctionDef):
        tree.decorator_list = []
    for inner in ast.walk(tree):
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
        elif isinstance(inner, ast.arg):
            inner.annotation = None
    return tree


def _names(tree: ast.AST) -> Iterable[str]:
    return dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = function.__closure__ or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}
