"""frozen-parameter: a parameter does not require grad although its neighbours of the same kind do.

What it checks
    Parameters with requires_grad=False that look like an accident: one tensor of a layer while the layer's others, and the
    same tensor of other layers of that class, are trained; an adapter that is frozen while something else is trained; a
    frozen parameter in a selection that was handed to the optimizer.
Why it matters
    A flag that was switched off for saving, sharing or a warm-up, and not on again, freezes a part for good. Nothing raises,
    and torch's optimizers skip it.
How it decides
    Freezing is taken for meant if it has a system: whole modules, one kind of tensor everywhere (all biases), one class
    (all norms). The optimizer's selection speaks only if it leaves other frozen parameters out, so that the frozen one was
    chosen. Always a warning.
Broken
    for p in model.parameters(): p.requires_grad_(False)      # then adapters are added, and frozen with the rest
Repaired
    for name, p in model.named_parameters(): p.requires_grad_("lora" in name)
Limits
    A whole module that was frozen by accident looks like one that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from chainrule.checks.parameters.owners import listed, parameters_of, place
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Outcome
from chainrule.watch.names import held_by

NAME = "frozen-parameter"
_ADAPTER = re.compile(r"(^|[._])(lora|adapter|prompt_encoder|ia3|modules_to_save)", re.IGNORECASE)


def check(subject: Subject) -> Outcome:
    """One finding for each way in which freezing looks like an accident."""
    parameters = parameters_of(subject.setup)
    frozen = [path for path, parameter in parameters.items() if not parameter.requires_grad]
    if not frozen:
        return []
    reported: set[str] = set()
    findings: list[Finding] = []
    for paths, reason in _accidents(subject, frozen):
        fresh = [path for path in paths if path not in reported]
        reported |= set(fresh)
        findings += [_finding(subject, fresh, reason)] if fresh else []
    return findings


def _accidents(subject: Subject, frozen: list[str]) -> Iterator[tuple[list[str], str]]:
    model = subject.setup.module
    yield [path for path in frozen if _ADAPTER.search(path)], "an adapter is there to be trained"
    yield _odd_ones(model), "the layer's other tensors, and this one in layers of the same class, are trained"
    yield _chosen(subject, frozen), "the optimizer was given it, and not the other frozen ones"


def _odd_ones(model: nn.Module) -> list[str]:
    """Frozen tensors whose layer has a trained one, where a layer of the same class has this tensor trained."""
    trained_names = {
        (type(module), name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }
    odd = []
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if any(parameter.requires_grad for parameter in own.values()):
            names = [n for n, p in own.items() if not p.requires_grad and (type(module), n) in trained_names]
            odd += [f"{path}.{name}".removeprefix(".") for name in names]
    return odd


def _chosen(subject: Subject, frozen: list[str]) -> list[str]:
    """Frozen parameters that the optimizer holds, if it was given a selection that leaves other frozen ones out."""
    if not subject.setup.optimizers:
        return []
    held = {id(tensor) for tensor in held_by(*subject.setup.optimizers)}
    parameters = parameters_of(subject.setup)
    inside = [path for path in frozen if id(parameters[path]) in held]
    return inside if len(inside) < len(frozen) else []


def _finding(subject: Subject, paths: list[str], reason: str) -> Finding:
    plural = f"{len(paths):,} parameters do" if len(paths) > 1 else "a parameter does"
    return Finding(
        check=NAME,
        severity="warning",
        where=place(paths),
        message=f"{plural} not require grad, by accident as it seems: {listed(paths)}",
        evidence={"parameters": paths, "reason": reason},
        notes=(
            f"The reason: {reason}.",
            "Set requires_grad_(True) after everything that freezes; if it is meant, leave it out of the optimizer.",
        ),
        reproduce=subject.reproduce(NAME),
    )
