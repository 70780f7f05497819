"""not-registered: a trainable tensor that the loss uses is no registered parameter of the model.

What it checks
    Modules, parameters and tensors that require grad which hang at the model outside its registry: in a plain list, tuple,
    dict or set, or as a plain attribute.
Why it matters
    model.parameters(), state_dict(), .to() and .train() do not see them: the optimizer never moves them, a checkpoint
    loses them, dropout and devices are not switched.
How it decides
    Walks the attributes of every module; a tensor counts if it requires grad, is not registered anywhere in the model, and
    autograd brings it a gradient from the loss. A teacher that is hidden in a list on purpose gets none. An error if there
    is an optimizer and it does not hold the tensor; else a warning, for checkpoints miss it all the same.
Broken
    self.layers = [nn.Linear(d, d) for _ in range(n)]
Repaired
    self.layers = nn.ModuleList([nn.Linear(d, d) for _ in range(n)])
Limits
    Tensors held by a function's closure or by an object that is no container are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.parameters.owners import entries, listed, place
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Outcome
from chainrule.watch.names import held_by

NAME = "not-registered"


def check(subject: Subject) -> Outcome:
    """One finding for all tensors that hang outside the registry and are used."""
    hidden = hidden_tensors(subject.setup.module)
    if not hidden:
        return []
    used = on_copies(subject.setup, subject.batch, lambda copies: _used(copies, hidden), seed=subject.seed)
    return [_finding(subject, {path: hidden[path] for path in used})] if used else []


def hidden_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Path -> tensor that requires grad, of all that are reachable by attributes and containers but not registered."""
    known = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    modules = {id(module) for module in model.modules()}
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                prefix = f"{path}.{name}".removeprefix(".")
                for place_, tensor in _tensors(value, prefix, modules):
                    if tensor.requires_grad and tensor.is_leaf and id(tensor) not in known:
                        known.add(id(tensor))
                        found[place_] = tensor
    return found


def _tensors(value: object, path: str, modules: set[int], depth: int = 4) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, nn.Module):
        if id(value) not in modules:
            yield from ((f"{path}.{name}", parameter) for name, parameter in value.named_parameters())
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{path}[{key!r}]", modules, depth - 1)
    elif depth and isinstance(value, (list, tuple, set)):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{path}[{index}]", modules, depth - 1)


def _used(copies: Copies, hidden: Mapping[str, Tensor]) -> list[str]:
    loss = copies.loss()
    if not loss.requires_grad:
        return []
    gradients = torch.autograd.grad(loss, [*hidden.values()], allow_unused=True)
    return [path for path, gradient in zip(hidden, gradients, strict=True) if gradient is not None]


def _finding(subject: Subject, used: Mapping[str, Tensor]) -> Finding:
    paths, optimizers = list(used), subject.setup.optimizers
    held = {id(tensor) for tensor in held_by(*optimizers)}
    lost = bool(optimizers) and not all(id(tensor) in held for tensor in used.values())
    count = f"{len(paths):,} tensors are" if len(paths) > 1 else "a tensor is"
    return Finding(
        check=NAME,
        severity="error" if lost else "warning",
        where=place(paths),
        message=f"{count} trained by the loss and not registered in the model: {listed(paths)}",
        evidence={"tensors": paths, "entries": entries(used.values()), "held_by_the_optimizer": not lost},
        notes=(
            f"model.parameters() and state_dict() miss {entries(used.values()):,} entries"
            + ("; the optimizer does not hold them, so they never move." if lost else "."),
            "Keep modules in nn.ModuleList or nn.ModuleDict, tensors as nn.Parameter.",
        ),
        reproduce=subject.reproduce(NAME),
    )
