"""twice-in-optimizer: the optimizer holds one tensor twice, or two parameters that are the same memory.

What it checks
    Each tensor appears once in the optimizer's groups, and no two of its parameters share memory.
Why it matters
    A tensor that is held twice is stepped twice, with one state overwritten by the other. Two parameters over one memory
    (a tie made through .data) each keep their own momentum and both write.
How it decides
    By identity of tensors (an error) and by address, size and strides of their memory (a warning).
Broken
    optimizer.param_groups[0]["params"].extend(model.head.parameters())
Repaired
    optimizer = torch.optim.AdamW(model.parameters())
Limits
    Parameters that overlap in part are not compared.
"""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor

from chainrule.checks.parameters.owners import by_identity, called, listed, parameters_of, place
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.names import held_by

NAME = "twice-in-optimizer"


def check(subject: Subject) -> Outcome:
    """One finding for tensors held twice, one for memory held twice."""
    if not subject.setup.optimizers:
        return NotRun("the set-up names no optimizer", missing=True)
    names = by_identity(parameters_of(subject.setup))
    held = held_by(*subject.setup.optimizers)
    count: dict[int, int] = defaultdict(int)
    for tensor in held:
        count[id(tensor)] += 1
    repeated = [names.get(key, "a tensor that is not the model's") for key, n in count.items() if n > 1]
    shared = _shared(held, names)
    return [*([_finding(subject, repeated, same=True)] if repeated else []), *(_finding(subject, s) for s in shared)]


def _shared(held: list[Tensor], names: dict[int, str]) -> list[list[str]]:
    """Groups of paths of different parameters over one memory."""
    by_memory: dict[tuple[object, ...], dict[int, str]] = defaultdict(dict)
    for tensor in held:
        if tensor.numel() and id(tensor) in names:
            by_memory[(tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())][id(tensor)] = names[
                id(tensor)
            ]
    return [list(group.values()) for group in by_memory.values() if len(group) > 1]


def _finding(subject: Subject, paths: list[str], *, same: bool = False) -> Finding:
    optimizer = called(subject.setup)
    message = (
        f"{optimizer} holds {listed(paths)} twice: each step moves it twice"
        if same
        else f"{listed(paths)} are different parameters over one memory: {optimizer} writes it by each of them"
    )
    return Finding(
        check=NAME,
        severity="error" if same else "warning",
        where=place(paths) if same else paths[-1],
        message=message,
        evidence={"parameters": paths},
        notes=(
            "Hand each parameter over once."
            if same
            else "Tie by assigning the parameter itself (head.weight = embedding.weight), not its .data.",
        ),
        reproduce=subject.reproduce(NAME),
    )
