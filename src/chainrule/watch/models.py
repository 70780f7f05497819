"""The models of a program, of which each optimizer trains its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from chainrule.graph import Graph, Leaf
from chainrule.watch.names import held_by, inner, roots_of


def models_of(called: nn.Module, optimizers: list[Optimizer]) -> dict[str, nn.Module]:
    """The outermost modules that hold what was called or what any optimizer trains, each under its class's name."""
    trained = [parameter for optimizer in optimizers for parameter in held_by(optimizer)]
    models: dict[str, nn.Module] = {}
    for root in roots_of([*called.parameters(), *trained]):
        model = inner(root)
        if all(model is not known for known in models.values()):
            name = type(model).__name__
            taken = sum(known.rstrip("0123456789") == name for known in models)
            models[f"{name}{taken + 1}" if taken else name] = model
    return models


def holding(models: Mapping[str, nn.Module]) -> nn.Module:
    """One module that holds several."""
    holder = nn.Module()
    for name, model in models.items():
        holder.add_module(name, model)
    return holder


def restricted(
    graph: Graph, models: Mapping[str, nn.Module], training: tuple[Optimizer, ...], optimizers: list[Optimizer]
) -> tuple[Graph, nn.Module]:
    """(the graph in which only what no other optimizer trains is trainable, the model that these optimizers train)."""
    own = {id(parameter) for parameter in held_by(*training)}
    others = {id(p) for other in optimizers for p in held_by(other)} - own
    mine = {name: model for name, model in models.items() if any(id(p) in own for p in model.parameters())} or models
    single = len(models) == 1
    fixed = {
        path if single else f"{name}.{path}"
        for name, model in models.items()
        for path, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in others or name not in mine
    }
    prefix = "" if single or len(mine) > 1 else f"{next(iter(mine))}."
    leaves = {name: _leaf(leaf, fixed, prefix) for name, leaf in graph.leaves.items()}
    root = next(iter(mine.values())) if len(mine) == 1 else holding(mine)
    return replace(graph, leaves=leaves), root


def _leaf(leaf: Leaf, fixed: set[str], prefix: str) -> Leaf:
    if leaf.kind not in ("parameter", "buffer"):
        return leaf
    trainable = leaf.trainable and leaf.path not in fixed
    return replace(leaf, trainable=trainable, paths=tuple(path.removeprefix(prefix) for path in leaf.paths))
