"""The repeated modules of a graph: consecutive nodes of `layers.0`, `layers.1` ... that run the same formulas.

Twelve equal blocks are one text in the reader's head; `backward_source` prints them once and loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from chainrule.graph import Argument, Graph, Node, Ref, refs_in


@dataclass(frozen=True, eq=False)
class Block:
    """A stretch of nodes with what goes in and out of it.

    prefix      path of the repeated module ("blocks.3"), or "" for what stands between repeated modules
    inputs      values from outside, in order of first use, except the module's own parameters and buffers
    parameters  leaf names of the module's own parameters and buffers, in order of first use
    outputs     values that are used outside
    key         equal for blocks that run the same formulas on the same relative parameters
    """

    prefix: str
    nodes: tuple[Node, ...]
    inputs: tuple[Ref, ...]
    parameters: tuple[str, ...]
    outputs: tuple[Ref, ...]
    key: Any


@dataclass(frozen=True, eq=False)
class Run:
    """Equal blocks one after the other, such that a loop says the same: each passes its outputs on to the next.

    carried  for each input position the position of the previous block's output, or None where all blocks read one value
    """

    blocks: tuple[Block, ...]
    carried: tuple[int | None, ...]


def runs(graph: Graph) -> list[Run]:
    """The whole graph as runs, in order; a run of one block is straight code."""
    blocks = list(_blocks(graph))
    found: list[Run] = []
    for _, group in groupby(blocks, key=lambda block: (block.key, block.prefix.rpartition(".")[0], block.prefix == "")):
        members = tuple(group)
        carried = _carried(members)
        loops = len(members) > 1 and carried is not None and _only_passed_on(members, graph)
        found += [Run(members, carried or ())] if loops else [Run((member,), ()) for member in members]
    return found


def relative(graph: Graph, block: Block, leaf: str) -> str:
    """A parameter's path inside the repeated module: "attention.query.weight"."""
    path = graph.leaves[leaf].path
    return path[len(block.prefix) + 1 :] if block.prefix else path


def _blocks(graph: Graph) -> Iterator[Block]:
    stretches = [(prefix, tuple(nodes)) for prefix, nodes in groupby(graph.nodes, key=_prefix)]
    for prefix, nodes in stretches:
        yield _block(graph, prefix, nodes)


def _prefix(node: Node) -> str:
    """Path of the outermost enclosing module whose name is a number: a member of a ModuleList or Sequential."""
    return next((path for path, _ in node.stack if path.rpartition(".")[2].isdigit()), "")


def _block(graph: Graph, prefix: str, nodes: tuple[Node, ...]) -> Block:
    names = {node.name for node in nodes}
    outside = list(dict.fromkeys(ref for node in nodes for ref in node.refs() if ref.name not in names))
    own = [ref.name for ref in outside if _is_own(graph, prefix, ref.name)]
    inputs = tuple(ref for ref in outside if ref.name not in own)
    users = [ref for node in graph.nodes if node.name not in names for ref in node.refs()]
    used = dict.fromkeys(ref for ref in [*users, graph.output] if ref.name in names)
    outputs = tuple(sorted(used, key=lambda ref: ([node.name for node in nodes].index(ref.name), ref.index or 0)))
    block = Block(prefix, nodes, inputs, tuple(own), outputs, None)
    return Block(prefix, nodes, inputs, tuple(own), outputs, _key(graph, block) if prefix else id(nodes))


def _is_own(graph: Graph, prefix: str, name: str) -> bool:
    leaf = graph.leaves.get(name)
    kinds = ("parameter", "buffer")
    # A parameter that is tied to one elsewhere is nobody's own: it comes in as an input, and its gradients are summed outside.
    return (
        leaf is not None
        and leaf.kind in kinds
        and all(p.startswith(f"{prefix}." if prefix else "") for p in leaf.paths)
    )


def _key(graph: Graph, block: Block) -> Any:
    names: dict[str, Any] = {node.name: ("node", number) for number, node in enumerate(block.nodes)}
    names.update({leaf: ("own", relative(graph, block, leaf)) for leaf in block.parameters})
    places = {ref: ("input", number) for number, ref in enumerate(block.inputs)}

    def canonical(argument: Argument) -> Any:
        if isinstance(argument, Ref):
            return places[argument] if argument in places else (*names[argument.name], argument.index)
        if isinstance(argument, tuple):
            return tuple(canonical(item) for item in argument)
        return repr(argument)

    formulas = tuple(
        (str(node.op), tuple((k, canonical(v)) for k, v in node.arguments.items())) for node in block.nodes
    )
    outputs = tuple((*names[ref.name], ref.index) for ref in block.outputs)
    return formulas, outputs


def _carried(blocks: tuple[Block, ...]) -> tuple[int | None, ...] | None:
    """How inputs follow from the previous block's outputs, the same way all along; None if they do not."""
    plans = []
    for before, after in pairwise(blocks):
        plan: list[int | None] = []
        for position, ref in enumerate(after.inputs):
            if ref in before.outputs:
                plan.append(before.outputs.index(ref))
            elif ref == before.inputs[position]:
                plan.append(None)
            else:
                return None
        plans.append(tuple(plan))
    return plans[0] if plans and all(plan == plans[0] for plan in plans) else None


def _only_passed_on(blocks: tuple[Block, ...], graph: Graph) -> bool:
    """Whether each block but the last is read by the next one alone."""
    for block, following in pairwise(blocks):
        inside = {node.name for node in (*block.nodes, *following.nodes)}
        names = {ref.name for ref in block.outputs}
        if graph.output in block.outputs or names & set(_read_by(graph, outside=inside)):
            return False
    return True


def _read_by(graph: Graph, outside: Iterable[str]) -> Iterator[str]:
    for node in graph.nodes:
        if node.name not in outside:
            for argument in node.arguments.values():
                yield from (ref.name for ref in refs_in(argument))
