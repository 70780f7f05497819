"""A graph's forward and backward as Python that runs by itself: the textbook's page for this very model.

Every forward line carries its formula and the user's line; every backward line calls the rule whose text stands above it;
equal modules are printed once and looped. Executing the text gives `value_and_grad(leaves)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from chainrule.autodiff.blocks import Block, Run, relative, runs
from chainrule.autodiff.reverse import active_values, output_refs, rule_of
from chainrule.autodiff.rule_text import RuleText, rule_function
from chainrule.derivatives import FLAT, RULES
from chainrule.derivatives.rule import parameters_of
from chainrule.graph import Argument, Graph, Node, Ref, Spec, op_name, schema_defaults

_SUPPORT = '''
def fit(gradient, argument):
    """Un-broadcast and cast: every broadcast copy contributes, so their gradients are summed."""
    if gradient.shape != argument.shape:
        gradient = gradient.sum_to_size(argument.shape)
    return gradient.to(argument.dtype)


def plus(total, share):
    """A value that is used twice gets the sum of both gradients; None is nothing."""
    if total is None or share is None:
        return share if total is None else total
    return total + share


def within(leaves, prefix):
    """The leaves of one module, by their names inside it."""
    return {path.removeprefix(prefix): value for path, value in leaves.items() if path.startswith(prefix)}'''


def backward_source(graph: Graph) -> str:
    """Python text that defines value_and_grad(leaves) -> (loss, {parameter: gradient}) for this graph.

    `leaves` maps each leaf's path (parameters, buffers, batch, constants, random draws: `leaf.path`) to its tensor.
    Raises MissingRuleError for an op on the gradient path that has no rule.
    """
    return _Writer(graph).text()


class _Writer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._active = active_values(graph)
        self._rules = RuleText()
        self._runs = runs(graph)
        self._functions: dict[Any, str] = {}
        self._templates = self._choose_templates()
        # Of the block that is being written: its path, names of its nodes, and what its own parameters are called in it.
        self._prefix = ""
        self._inside: set[str] = set()
        self._own: dict[str, str] = {}

    def text(self) -> str:
        blocks = [line for run in self._runs for line in self._block(run)]
        main = [*self._main()]
        head = [
            f'"""Loss and gradients of {self._title()}, written out by chainrule.',
            "",
            "value_and_grad(leaves) takes these tensors by name and returns (loss, {parameter: gradient}):",
            *(f"    {leaf.path:<40} {tuple(leaf.value.shape)} {leaf.kind}" for leaf in self._graph.leaves.values()),
            '"""',
            "",
            "from __future__ import annotations",
            "",
            self._rules.imports,
            "from types import SimpleNamespace",
            "",
            "aten = torch.ops.aten",
            "",
            "# --- derivative rules: g = dL/dy, y = the output ---------------------------------------------------",
            "",
            str(self._rules),
            "",
            _SUPPORT,
            "",
        ]
        return "\n".join([*head, *blocks, *main]) + "\n"

    def _title(self) -> str:
        classes = [node.stack[0][1] for node in self._graph.nodes if node.stack]
        return classes[0] if classes else "the loss"

    def _choose_templates(self) -> dict[Any, Block]:
        """Of equal blocks the one through most of whose inputs a gradient flows: the first reads the batch, say."""
        templates: dict[Any, Block] = {}
        for block in (block for run in self._runs for block in run.blocks):
            best = templates.get(block.key, block)
            templates[block.key] = max(best, block, key=lambda b: sum(ref in self._active for ref in b.inputs))
        return templates

    # --- one block: its forward and its backward ---

    def _block(self, run: Run) -> Iterator[str]:
        block = self._templates[run.blocks[0].key]
        if block.key in self._functions:
            return
        name = self._name(block)
        self._functions[block.key] = name
        self._prefix, self._inside = block.prefix, {node.name for node in block.nodes}
        self._own = {leaf: self._short(block, leaf) for leaf in block.parameters}
        title = f"{run.blocks[0].prefix} ... {run.blocks[-1].prefix}" if len(run.blocks) > 1 else block.prefix
        rule = f"# --- {title or 'between repeated modules'}: {len(block.nodes)} formulas "
        yield from ("", f"{rule:-<100}", "", "")
        inputs = "".join(f", {self._variable(ref)}" for ref in block.inputs)
        yield f"def {name}_forward(own{inputs}):"
        yield from self._indent(self._forward(block))
        arriving = "".join(f", g_{self._variable(ref)}" for ref in block.outputs)
        yield from ("", "", f"def {name}_backward(v{arriving}):")
        yield from self._indent(self._backward(block))
        yield ""

    def _name(self, block: Block) -> str:
        number = len(self._functions) + 1
        if not block.prefix:
            return f"part_{number}"
        kinds = [kind for node in block.nodes for path, kind in node.stack if path == block.prefix]
        return f"{kinds[0].lower()}_{number}"

    def _forward(self, block: Block) -> Iterator[str]:
        for leaf in block.parameters:
            yield f"{self._own[leaf]} = own[{relative(self._graph, block, leaf)!r}]"
        last = None
        for node in block.nodes:
            if node.source and node.source != last:
                yield f"# {node.source}  {node.source.code}"
                last = node.source
            if node.op in RULES:
                yield f"#     {' '.join(RULES[node.op].formula.split())}"
            yield f"{node.name} = {_call(node, self._local)}"
        yield "return SimpleNamespace(**locals())"

    def _backward(self, block: Block) -> Iterator[str]:
        started = set(block.outputs)
        for node in reversed(block.nodes):
            outputs = [ref for ref in output_refs(node) if ref in started and ref in self._active]
            wanted = [ref for ref in dict.fromkeys(node.refs()) if ref in self._active]
            if outputs and wanted and node.op not in FLAT:
                yield from self._pull_back(node, wanted, started)
        yield from (f"g_{self._variable(ref)} = None" for ref in block.inputs if ref not in started)
        owned = [leaf for leaf in block.parameters if Ref(leaf) in started]
        own = ", ".join(f"{relative(self._graph, block, leaf)!r}: g_{self._own[leaf]}" for leaf in owned)
        back = "".join(f"g_{self._variable(ref)}, " for ref in block.inputs)
        yield f"return ({back}), {{{own}}}"

    def _pull_back(self, node: Node, wanted: list[Ref], started: set[Ref]) -> Iterator[str]:
        rule = rule_of(node)
        name = self._rules.add(rule)
        first = "y" if rule.local is not None else "g, y"
        skip = len(first.split(", "))
        given = [
            f"{parameter}={self._value(node.arguments[schema])}"
            for parameter, schema in list(parameters_of(rule_function(rule)))[skip:]
        ]
        g = self._cotangent(node, started)
        place = node.module.removeprefix(self._prefix).lstrip(".")
        yield f"# {f'{place}.' if place else ''}{op_name(node.op)}: {' '.join(rule.formula.split())}"
        if rule.local is not None:
            yield f"d = {{'self': {g} * {name}({', '.join([f'v.{node.name}', *given])})}}"
        else:
            yield f"d = {name}({', '.join([g, f'v.{node.name}', *given])})"
        for argument, part in self._parts(node, rule.nondiff):
            if argument in wanted:
                share = f"fit(d[{part}, v.{self._local(argument)})"
                old = f"plus(g_{self._variable(argument)}, {share})" if argument in started else share
                yield f"g_{self._variable(argument)} = {old}"
                started.add(argument)

    def _parts(self, node: Node, nondiff: frozenset[str]) -> Iterator[tuple[Ref, str]]:
        for name, argument in node.arguments.items():
            if name in nondiff:
                continue
            if isinstance(argument, Ref):
                yield argument, f"{name!r}]"
            elif isinstance(argument, tuple):
                yield from ((item, f"{name!r}][{i}]") for i, item in enumerate(argument) if isinstance(item, Ref))

    def _cotangent(self, node: Node, started: set[Ref]) -> str:
        if isinstance(node.spec, Spec):
            return f"g_{node.name}"
        parts = []
        for ref, spec in zip(output_refs(node), node.spec, strict=True):
            floating = spec is not None and spec.dtype.is_floating_point
            nothing = f"torch.zeros_like(v.{node.name}[{ref.index}])" if floating else "None"
            parts.append(f"g_{self._variable(ref)}" if ref in started else nothing)
        return f"({', '.join(parts)},)"

    # --- the whole: forward through all blocks, and back ---

    def _main(self) -> Iterator[str]:
        yield from ("", "# --- the whole " + "-" * 85, "", "", "def value_and_grad(leaves):")
        yield from self._indent(self._whole())

    def _whole(self) -> Iterator[str]:
        yield "with torch.no_grad():"
        yield from self._indent(self._whole_body())

    def _whole_body(self) -> Iterator[str]:
        places: dict[Ref, str] = {}
        for number, run in enumerate(self._runs, start=1):
            yield from self._forward_run(number, run, places)
        yield f"loss = {places[self._graph.output]}"
        yield "adjoints = {" + f"{str(self._graph.output)!r}: torch.ones_like(loss)" + "}"
        for number, run in reversed(list(enumerate(self._runs, start=1))):
            yield from self._backward_run(number, run)
        yield f"parameters = {[leaf.path for leaf in self._graph.parameters.values()]!r}"
        yield "return loss, {path: plus(adjoints.get(path), torch.zeros_like(leaves[path])) for path in parameters}"

    def _forward_run(self, number: int, run: Run, places: dict[Ref, str]) -> Iterator[str]:
        first, name = run.blocks[0], self._functions[run.blocks[0].key]
        outputs = [self._member(ref) for ref in self._templates[first.key].outputs]
        given = [self._place(ref, places) for ref in first.inputs]
        if len(run.blocks) == 1:
            yield f"v{number} = {name}_forward({', '.join([self._leaves_of(first), *given])})"
            places.update({ref: f"v{number}.{own}" for ref, own in zip(first.outputs, outputs, strict=True)})
            return
        moving = {
            position: f"x{number}_{position}" for position, source in enumerate(run.carried) if source is not None
        }
        yield from (f"{variable} = {given[position]}" for position, variable in moving.items())
        arguments = [moving.get(position, value) for position, value in enumerate(given)]
        yield f"v{number} = []"
        yield f"for prefix in {[f'{block.prefix}.' for block in run.blocks]!r}:"
        yield f"    v{number}.append({name}_forward({', '.join(['within(leaves, prefix)', *arguments])}))"
        for position, variable in moving.items():
            source = run.carried[position]
            assert source is not None
            yield f"    {variable} = v{number}[-1].{outputs[source]}"
        last = run.blocks[-1]
        places.update({ref: f"v{number}[-1].{own}" for ref, own in zip(last.outputs, outputs, strict=True)})

    def _backward_run(self, number: int, run: Run) -> Iterator[str]:
        if not any(ref in self._active for block in run.blocks for ref in block.outputs):
            return
        name = self._functions[run.blocks[0].key]
        saved = f"reversed(v{number})" if len(run.blocks) > 1 else f"[v{number}]"
        yield f"for v, (prefix, outputs, inputs) in zip({saved}, ["
        yield from (f"    {self._names(block)!r}," for block in reversed(run.blocks))
        yield "]):"
        yield f"    back, own = {name}_backward(v, *(adjoints.get(output) for output in outputs))"
        yield "    for target, share in [*zip(inputs, back), *((prefix + path, share) for path, share in own.items())]:"
        yield "        adjoints[target] = plus(adjoints.get(target), share)"

    # --- names and values ---

    def _names(self, block: Block) -> tuple[str, list[str], list[str]]:
        prefix = f"{block.prefix}." if block.prefix else ""
        return prefix, [self._adjoint(ref) for ref in block.outputs], [self._adjoint(ref) for ref in block.inputs]

    def _adjoint(self, ref: Ref) -> str:
        """Under which name a value's adjoint is summed up: a leaf's path, so that tied parameters share one sum."""
        return self._graph.leaves[ref.name].path if ref.name in self._graph.leaves else str(ref)

    def _leaves_of(self, block: Block) -> str:
        return f"within(leaves, {block.prefix + '.'!r})" if block.prefix else "leaves"

    def _place(self, ref: Ref, places: Mapping[Ref, str]) -> str:
        return f"leaves[{self._graph.leaves[ref.name].path!r}]" if ref.name in self._graph.leaves else places[ref]

    def _short(self, block: Block, leaf: str) -> str:
        """A parameter's variable inside its block: attention_query_weight."""
        name = relative(self._graph, block, leaf).replace(".", "_")
        return f"{name}_" if name in self._inside or not name.isidentifier() else name

    def _variable(self, ref: Ref) -> str:
        """A variable's name for a value that crosses a block's border, or that a gradient is named after."""
        if ref.name in self._own:
            return self._own[ref.name]
        return ref.name if ref.index is None else f"{ref.name}_{ref.index}"

    def _member(self, ref: Ref) -> str:
        return ref.name if ref.index is None else f"{ref.name}[{ref.index}]"

    def _local(self, ref: Ref) -> str:
        """How a value is written inside the block: an item of its own node's tuple, or what was handed in."""
        return self._member(ref) if ref.name in self._inside else self._variable(ref)

    def _value(self, argument: Argument) -> str:
        return _literal(argument, lambda ref: f"v.{self._local(ref)}")

    @staticmethod
    def _indent(lines: Iterator[str]) -> Iterator[str]:
        return (f"    {line}" if line else line for line in lines)


def _call(node: Node, name: Any) -> str:
    """The op with its arguments, those at their default left out."""
    given = []
    keyword = False
    for (argument, default), schema in zip(schema_defaults(node.op), node.op._schema.arguments, strict=True):
        value = node.arguments[argument]
        if default is not ... and not isinstance(value, Ref) and value == default:
            keyword = True
            continue
        keyword = keyword or schema.kwarg_only
        given.append(f"{argument}={_literal(value, name)}" if keyword else _literal(value, name))
    return f"torch.ops.{node.op}({', '.join(given)})".replace("torch.ops.aten.", "aten.")


def _literal(value: Argument, name: Any) -> str:
    if isinstance(value, Ref):
        return str(name(value))
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(item, name) for item in value)}]"
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    return repr(value)
