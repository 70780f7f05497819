"""dead-loss-term: a term of the loss moves no parameter.

What it checks
    Every summand of the loss that is computed from trained parameters passes a gradient to at least one of them, and is
    not the same number whatever they are. A loss that is no sum is one term.
Why it matters
    An auxiliary loss that is detached, made anew from a number, computed from counts, or a constant by its own algebra (a
    balance loss that always sums to one) shows in the log, and changes nothing.
How it decides
    The graph is taken apart at its last additions, behind constant factors. "Trained" are the parameters that the optimizer
    holds, or all that require grad. A term is cut if it reads such a parameter and no gradient passes; lost if it is a
    plain number, or a tensor made of one, that changes when the parameters are moved; constant if |dL/dp| |p| is below
    1e-10 of the term at the user's point and at two others, in float64. A warning; an error if it is the whole loss.
    Where the same value is a term with its gradient too (x - x.detach()), nothing is said.
Broken
    loss = cross_entropy + 0.01 * balance.detach()
Repaired
    loss = cross_entropy + 0.01 * balance
Limits
    Terms that are added before a mean, or inside the model, are not seen apart. A term that is zero is left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, value_of
from chainrule.autodiff.reverse import reverse
from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.gradient.carried import carrying
from chainrule.checks.parameters.loss_terms import Term, read_by, terms_of
from chainrule.checks.parameters.owners import trained
from chainrule.checks.silence import JOINT, moved
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Graph, Ref
from chainrule.tolerance import AGREEMENT

NAME = "dead-loss-term"
POINTS = 2  # besides the user's own: a term may be stationary just there
SMALL = 1e-3  # of a parameter's rms: enough to change a number that comes from it, too little to change a branch
_CUT = "a detach or a formula without derivative cuts it off"
_CONSTANT = "it is the same number whatever the parameters are"
_LOST = "its value left torch and came back as a number"


def check(subject: Subject) -> Outcome:
    """One finding for each term that moves nothing."""
    graph, wanted = subject.exact, trained(subject.setup)
    leaves = {leaf.name for leaf in graph.leaves.values() if wanted.keys() & set(leaf.paths)}
    if not leaves:
        return NotRun("no trained parameter is in the graph")
    active = carrying(graph, leaves)
    terms = terms_of(graph, active)
    found = [(term, _CUT) for term in _cut(graph, terms, leaves, active)]
    found += [(term, _CONSTANT) for term in _constant(subject, terms, leaves, active)]
    found += [(term, _LOST) for term in _lost(subject, terms, leaves)]
    return [_finding(subject, term, terms, reason) for term, reason in found]


def _cut(graph: Graph, terms: list[Term], leaves: set[str], active: set[Ref]) -> list[Term]:
    """Terms that read a trained parameter and pass nothing back, but for the detached half of x - x.detach()."""
    shown = {term.ref for term in terms if term.ref is not None and term.ref in active}
    without = [term for term in terms if term.ref is not None and term.ref not in active]
    return [
        term
        for term in without
        if term.ref is not None
        and leaves & read_by(graph, term.ref)
        and not (term.node and shown & {*term.node.refs()})
    ]


def _constant(subject: Subject, terms: list[Term], leaves: set[str], active: set[Ref]) -> list[Term]:
    """Terms with a gradient that is zero wherever one looks."""
    if len(terms) == 1:
        return []
    refs = [(term, term.ref) for term in terms if term.ref is not None and term.ref in active]
    return [term for term, ref in refs if _is_constant(subject, ref, sorted(leaves))]


def _is_constant(subject: Subject, ref: Ref, leaves: list[str]) -> bool:
    """True if moving any trained parameter by its size changes the term by less than 1e-10 of itself, wherever one looks."""
    graph = subject.exact
    if not torch.is_nonzero(value_of(ref, subject.values).abs().sum()):
        return False
    generator = subject.generator(51)
    points: list[dict[str, Tensor]] = [{}] + [_moved_leaves(graph, leaves, generator) for _ in range(POINTS)]
    return all(_elasticity(graph, ref, leaves, point) <= AGREEMENT for point in points)


def _moved_leaves(graph: Graph, leaves: list[str], generator: torch.Generator) -> dict[str, Tensor]:
    copies = {name: graph.leaves[name].value.detach().clone() for name in leaves}
    with moved(copies, JOINT, generator):
        return {name: tensor.clone() for name, tensor in copies.items()}


def _elasticity(graph: Graph, ref: Ref, leaves: list[str], point: dict[str, Tensor]) -> float:
    values = evaluate(graph, point)
    term = value_of(ref, values)
    adjoints = reverse(graph, values, seeds={ref: torch.ones_like(term)}, keep_all=False)
    sizes = [(adjoints[Ref(name)].norm() * values[name].norm()) for name in leaves if Ref(name) in adjoints]
    return max((float(size) for size in sizes), default=0.0) / float(term.abs().sum().clamp_min(1e-300))


def _lost(subject: Subject, terms: list[Term], leaves: set[str]) -> list[Term]:
    """Terms that no parameter is seen to enter, and that yet change when the parameters are moved."""
    graph = subject.graph
    fixed = [i for i, term in enumerate(terms) if term.ref is None or not leaves & read_by(graph, term.ref)]
    if graph.origin != "tape" or not fixed:
        return []
    before = on_copies(subject.setup, subject.batch, _numbers, seed=subject.seed)
    after = on_copies(subject.setup, subject.batch, lambda copies: _elsewhere(subject, copies), seed=subject.seed)
    if not len(before) == len(after) == len(terms):  # it went by another branch: nothing can be compared
        return []
    return [terms[i] for i in fixed if before[i] != after[i]]


def _numbers(copies: Copies) -> list[float]:
    """The value of each term in an eager run with the copies as they are now."""
    graph = copies.taped()
    active = carrying(graph, [leaf.name for leaf in graph.leaves.values() if leaf.trainable])
    values = evaluate(graph)
    terms = terms_of(graph, active)
    return [term.number if term.ref is None else float(value_of(term.ref, values).double().sum()) for term in terms]


def _elsewhere(subject: Subject, copies: Copies) -> list[float]:
    with moved(copies.trainable, SMALL, subject.generator(52)):
        return _numbers(copies)


def _finding(subject: Subject, term: Term, terms: list[Term], reason: str) -> Finding:
    source = line_of(term.node.source) if term.node else line_of(subject.graph.nodes[-1].source)
    value = float(value_of(term.ref, subject.values).sum()) if term.ref is not None else term.number
    alone = len(terms) == 1
    return Finding(
        check=NAME,
        severity="error" if alone else "warning",
        where=term.node.where if term.node else "loss",
        source=source,
        message="the loss moves none of the parameters that are trained"
        if alone
        else "a term of the loss moves no parameter",
        evidence={"value": value, "loss": subject.loss, "terms": len(terms), "reason": reason},
        rows=(("value of the term", f"{value:.6g}", f"of a loss of {subject.loss:.6g}, one of {len(terms)} terms"),),
        notes=(
            f"{reason[0].upper()}{reason[1:]}.",
            "Leave it out of the loss if it is there for the log; else compute it from values that carry a gradient.",
        ),
        reproduce=subject.reproduce(NAME),
    )
