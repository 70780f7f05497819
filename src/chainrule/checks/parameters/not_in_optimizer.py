"""not-in-optimizer: a parameter that the loss trains is held by no optimizer, or the optimizer holds another model's.

What it checks
    Every parameter that requires grad and that the loss reaches is held by the optimizer.
Why it matters
    A gradient is computed for it at every step and never used: the layer stays at its random start. After the model was
    wrapped, copied, converted or given a new head, an optimizer that was made before goes on moving tensors that nobody reads.
How it decides
    By identity of tensors. An error if the optimizer holds not one of the model's parameters, or if it holds strangers of
    just the shapes of parameters that it misses: a copy. Otherwise a warning, since to train a part only is legitimate
    (say so by requires_grad_(False) on the rest).
Broken
    optimizer = torch.optim.AdamW(model.blocks.parameters())
Repaired
    optimizer = torch.optim.AdamW(model.parameters())
Limits
    A second optimizer inside Setup.step is not seen; what that one holds is reported as missing, as a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from chainrule.checks.parameters.owners import called, entries, listed, parameters_of, place
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.names import held_by

NAME = "not-in-optimizer"


def check(subject: Subject) -> Outcome:
    """The parameters that the loss reaches against the tensors that the optimizer holds."""
    setup = subject.setup
    if not setup.optimizers:
        return NotRun("the set-up names no optimizer", missing=True)
    parameters, held = parameters_of(setup), held_by(*setup.optimizers)
    ours = {id(tensor) for tensor in parameters.values()}
    strangers = [tensor for tensor in held if id(tensor) not in ours]
    if len(strangers) == len(held):
        return [_of_another_model(subject, parameters, held)]
    missing = _missing(subject, parameters, held)
    if not missing:
        return []
    return [_copied(subject, missing)] if _same_shapes(missing, strangers) else [_left_out(subject, missing)]


def _missing(subject: Subject, parameters: Mapping[str, nn.Parameter], held: list[Tensor]) -> dict[str, nn.Parameter]:
    known = {id(tensor) for tensor in held}
    open_ = {path: p for path, p in parameters.items() if p.requires_grad and id(p) not in known}
    if not open_:
        return {}
    reached = subject.own.gradients
    return {path: parameter for path, parameter in open_.items() if reached.get(path) is not None}


def _same_shapes(missing: Mapping[str, Tensor], strangers: list[Tensor]) -> bool:
    """True if each missing parameter has a twin of its shape among the strangers."""
    wanted = Counter(tuple(parameter.shape) for parameter in missing.values())
    return wanted <= Counter(tuple(tensor.shape) for tensor in strangers)


def _of_another_model(subject: Subject, parameters: Mapping[str, Tensor], held: list[Tensor]) -> Finding:
    optimizer = called(subject.setup)
    return Finding(
        check=NAME,
        severity="error",
        where=optimizer,
        message=f"{optimizer} holds no parameter of this model: training moves other tensors",
        evidence={"held": len(held), "parameters": len(parameters), "shared": 0},
        rows=(
            ("the model's", f"{len(parameters):,} parameters", listed(list(parameters))),
            ("the optimizer's", f"{len(held):,} tensors", f"{entries(held):,} entries, none of them the model's"),
        ),
        notes=(
            "The optimizer was made from a model that was then copied, wrapped, converted or loaded anew. Make it from the "
            "model that is trained, after every change to its parameters.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _copied(subject: Subject, missing: Mapping[str, Tensor]) -> Finding:
    optimizer = called(subject.setup)
    return Finding(
        check=NAME,
        severity="error",
        where=place(list(missing)),
        message=f"{optimizer} holds other tensors of the same shapes in place of {listed(list(missing))}",
        evidence={"missing": list(missing), "entries": entries(missing.values())},
        notes=(
            "These parameters were replaced after the optimizer was made (a new head, resized embeddings, a copy, a cast). "
            "It moves the old ones, which the model no longer reads: make the optimizer afterwards.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _left_out(subject: Subject, missing: Mapping[str, Tensor]) -> Finding:
    optimizer = called(subject.setup)
    count = f"{len(missing):,} parameters" if len(missing) > 1 else "a parameter"
    return Finding(
        check=NAME,
        severity="warning",
        where=place(list(missing)),
        message=f"{optimizer} does not hold {count} that the loss trains: {listed(list(missing))}",
        evidence={"missing": list(missing), "entries": entries(missing.values())},
        notes=(
            f"{entries(missing.values()):,} entries get a gradient and never move. Hand them to the optimizer; if they are to "
            "stay as they are, say so by requires_grad_(False), which saves their gradient too.",
        ),
        reproduce=subject.reproduce(NAME),
    )
