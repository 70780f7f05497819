"""dead-parameter: a parameter has no influence on the loss at all, or none is left that has one.

What it checks
    Every parameter that training is to move gets a gradient that is not exactly zero, here or nearby.
Why it matters
    A layer that is built and never called, a softmax over one class, a mask that is all zero: part of the model, or all of
    it, cannot learn, and the loss curve does not say so.
How it decides
    A suspect has gradient None or exactly zero at the user's point, at three points where all parameters are moved by 0.3
    of their rms, and where it alone is moved by 0.1, 1 and 3; and the loss does not change by more than rounding then. So
    an adapter behind a factor that starts at zero, or a unit that is switched off, is no suspect. An error if no parameter
    at all is left that learns; else a warning, for a part that this batch does not use may be meant; where the model
    branches on values, what the branch left out is only mentioned.
Broken
    probabilities = torch.softmax(self.head(x), dim=-1)      # one output unit: always 1
Repaired
    probability = torch.sigmoid(self.head(x))
Limits
    One batch. At most 48 suspects are moved one by one. A parameter that matters but gets no gradient is `cut-gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.checks.parameters.owners import entries, listed, parameters_of, place, trained
from chainrule.checks.silence import Silent, silent_parameters
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Line, NotRun, Outcome

NAME = "dead-parameter"


def check(subject: Subject) -> Outcome:
    """The parameters without gradient and without influence, in one finding for each way of being dead."""
    wanted = trained(subject.setup)
    if not wanted:
        return NotRun("no parameter that requires grad is held by the optimizer")
    silent = silent_parameters(subject)
    if silent and len(silent) == len(wanted):
        return [_all(subject, silent)]
    dead = [one for one in silent if one.effect == 0.0]
    kinds = [[one for one in dead if one.missing], [one for one in dead if not one.missing]]
    return [_some(subject, kind) for kind in kinds if kind]


def _all(subject: Subject, silent: Sequence[Silent]) -> Finding:
    paths = [one.path for one in silent]
    return Finding(
        check=NAME,
        severity="error",
        where=place(paths) if len(paths) == 1 else type(subject.setup.model).__name__,
        source=_loss_line(subject),
        message="no parameter gets a gradient: nothing can be learned",
        evidence={"parameters": paths},
        notes=(
            "Every gradient is exactly zero here and at three points nearby. Usual reasons: a softmax over one unit, targets "
            "or masks that are all zero, a loss that is constant, a detach on the way to it.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _some(subject: Subject, dead: Sequence[Silent]) -> Finding:
    paths = [one.path for one in dead]
    parameters = parameters_of(subject.setup)
    count = entries(parameters[path] for path in paths)
    plural = "parameters have" if len(paths) > 1 else "parameter has"
    reason = "nothing uses them" if dead[0].missing else "the gradient is exactly zero wherever one looks"
    return Finding(
        check=NAME,
        severity="info" if dead[0].missing and subject.graph.origin == "tape" else "warning",
        where=place(paths),
        message=f"{len(paths):,} {plural} no influence on the loss: {listed(paths)}",
        evidence={"parameters": paths, "entries": count, "gradient": "None" if dead[0].missing else "0"},
        notes=(
            f"{count:,} entries; {reason}. Call the module in forward, or take it out; if another batch uses it, let "
            "Setup.batches begin with one that does.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _loss_line(subject: Subject) -> Line | None:
    source = subject.graph.nodes[-1].source if subject.graph.nodes else None
    return None if source is None else Line(source.file, source.line, source.code)
