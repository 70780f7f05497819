"""cut-gradient: the loss depends on a parameter, but no gradient gets there.

What it checks
    A parameter that training is to move, whose gradient is None or exactly zero although the loss changes when the
    parameter does.
Why it matters
    A detach, a no_grad block, a tensor made anew from numbers, an argmax or a rounding on the way, a kernel without a
    backward, checkpointing of a block none of whose inputs needs a gradient: everything before it stays frozen, and the
    loss still falls, because what comes after it learns.
How it decides
    By trying: the suspects are the parameters without gradient (see `dead-parameter`); one that changes the loss by more
    than rounding when it alone is moved is cut. Its line is that of the first formula of the graph which reads a value the
    parameter reaches and has no derivative. An error where nobody means it: a custom backward that returns nothing, a step
    function or an index in the middle of the model, checkpointing without a gradient. A warning for a detach or a no_grad
    block; if it cuts off just one whole module and no optimizer is known to hold that, a stop-gradient is meant, and it is
    only mentioned. A module named in Setup.surrogate is left alone.
Broken
    with torch.no_grad():
        x = self.norm(x)
Repaired
    x = self.norm(x)
Limits
    Only parameters that get no gradient at all: a cut on one of two ways is not seen. One batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chainrule.checks.copies import on_copies
from chainrule.checks.gradient.carried import cuts, functions_on_the_way, rank
from chainrule.checks.gradient.leaving import exits_of
from chainrule.checks.parameters.owners import entries, listed, parameters_of, place, trained
from chainrule.checks.silence import Silent, silent_parameters
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Line, NotRun, Outcome, Severity
from chainrule.graph import Leaf, Source, op_name

NAME = "cut-gradient"
_CHECKPOINT = "None of the inputs have requires_grad=True"


@dataclass(frozen=True)
class Cause:
    """What cuts the gradient.

    words   ends the sentence "no gradient gets past ..."
    meant   True if somebody wrote it to stop the gradient: detach, no_grad
    """

    words: str
    where: str = ""
    source: Source | None = None
    meant: bool = False


def check(subject: Subject) -> Outcome:
    """One finding for each cause that cuts parameters off."""
    if not trained(subject.setup):
        return NotRun("no parameter that requires grad is held by the optimizer")
    silent = silent_parameters(subject)
    cut = [one for one in silent if one.effect > 0 and not _declared(one.path, subject)]
    if not cut:
        return []
    causes: dict[Cause, list[Silent]] = {}
    outside = _outside(subject)
    for one in cut:
        causes.setdefault(_cause(one.path, subject, outside), []).append(one)
    return [_finding(subject, cause, ones) for cause, ones in causes.items()]


def _declared(path: str, subject: Subject) -> bool:
    return any(path.startswith(f"{module}.") or path == module for module in subject.setup.surrogate)


def _cause(path: str, subject: Subject, outside: Cause) -> Cause:
    """What cuts this parameter off: a formula of the graph, a custom backward, or something outside the graph."""
    leaf = next((leaf for leaf in subject.graph.leaves.values() if path in leaf.paths), None)
    if leaf is None or outside.words.startswith("checkpoint"):
        return outside
    return next(_in_graph(leaf, subject), outside)


def _in_graph(leaf: Leaf, subject: Subject) -> Iterator[Cause]:
    for node in cuts(subject.graph, leaf):
        if node.module in subject.setup.surrogate:
            continue
        what = "detach() or a no_grad block" if rank(node) == 0 else f"{op_name(node.op)}, which has no derivative"
        if node.function and rank(node) > 0:
            what = f"{node.function}, whose forward has no derivative"
        yield Cause(what, node.where, node.source, meant=rank(node) == 0)
    for node in functions_on_the_way(subject.graph, leaf):
        yield Cause(
            f"the backward of {node.function}, which gives it none", f"{node.module}.{node.function}", node.source
        )


def _outside(subject: Subject) -> Cause:
    """What an eager run shows and a graph does not: a warning of checkpoint, a value that leaves torch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exits = on_copies(subject.setup, subject.batch, lambda copies: exits_of(copies.loss), seed=subject.seed)
    if any(_CHECKPOINT in str(warning.message) for warning in caught):
        return Cause("checkpoint(use_reentrant=True), since none of its inputs requires grad")
    if exits:
        return Cause(f"{exits[0].what}, by which the value leaves torch", "", exits[0].source)
    return Cause("a place that the graph does not show")


def _severity(subject: Subject, cause: Cause, paths: Sequence[str]) -> Severity:
    whole = _is_whole_module(subject, paths)
    if cause.meant:
        return "info" if whole and not subject.setup.optimizers else "warning"
    return "warning" if whole and not cause.words.startswith(("checkpoint", "the backward")) else "error"


def _is_whole_module(subject: Subject, paths: Sequence[str]) -> bool:
    """True if the paths are all trained parameters of one module, as where a teacher or a generator is held fixed."""
    model = subject.setup.module
    cut, wanted = set(paths), trained(subject.setup)
    modules = [name for name, _ in model.named_modules() if name]
    return any(cut == {path for path in wanted if path.startswith(f"{name}.")} for name in modules)


def _finding(subject: Subject, cause: Cause, cut: Sequence[Silent]) -> Finding:
    paths = [one.path for one in cut]
    parameters = parameters_of(subject.setup)
    count, strongest = entries(parameters[path] for path in paths), max(cut, key=lambda one: one.effect)
    plural = f"{len(paths):,} parameters" if len(paths) > 1 else paths[0]
    gradient = "None" if strongest.missing else "0"
    return Finding(
        check=NAME,
        severity=_severity(subject, cause, paths),
        where=cause.where or place(paths),
        source=_line(cause),
        message=f"the loss depends on {plural}, but no gradient gets past {cause.words}",
        evidence={
            "parameters": paths,
            "entries": count,
            "effect": {one.path: one.effect for one in cut},
            "cause": cause.words,
        },
        rows=(
            ("your gradient (autograd)", gradient, f"of {strongest.path}"),
            ("change of the loss", f"{strongest.effect:.3e}", f"when {strongest.path} is moved by its own size"),
        ),
        notes=(
            f"Cut off: {listed(paths)}; {count:,} entries stay as they were initialised.",
            "Take the cut away; where it is meant, declare the parameters by requires_grad_(False) or leave them out of the "
            "optimizer; a straight-through backward is named in Setup.surrogate.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _line(cause: Cause) -> Line | None:
    return line_of(cause.source)
