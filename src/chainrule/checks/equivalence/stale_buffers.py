"""stale-buffers: evaluating before training uses buffers that were never computed.

What it checks
    Buffers that forward updates in train mode, other than the statistics of batch norms: the loss in eval mode with what
    they hold now, against the same with what one pass in train mode puts there.
Why it matters
    The vectors of a spectral norm are random until the first pass in train mode: a network that is evaluated first (a
    frozen critic, a sanity check before epoch 0) runs with weights that are not normalised.
How it decides
    A change of the loss by more than 5 % is a warning. Spectral norms that iterate when they are made change it by less.
Broken
    layer = torch.nn.utils.spectral_norm(nn.Linear(8, 8)); layer.eval(); layer(x)
Repaired
    layer = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)); layer.eval(); layer(x)
Limits
    Harmless if the model is trained for one step before it is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from chainrule.autodiff.evaluate import evaluate, value_of
from chainrule.checks.copies import losses_in_eval
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "stale-buffers"
CHANGE = 0.05


def check(subject: Subject) -> Outcome:
    """Evaluate with the buffers of now and of after one pass."""
    model = subject.setup.module
    modules = dict(model.named_modules())
    fresh = {path for path in subject.graph.mutated if not isinstance(modules.get(path.rpartition(".")[0]), _NormBase)}
    if not fresh:
        return NotRun("forward updates no buffer but those of batch norms")
    values = evaluate(subject.graph)
    updated = {path: value_of(subject.graph.mutated[path], values) for path in fresh}
    try:
        now, after = _loss({}, subject), _loss(updated, subject)
    except Exception as error:  # whatever the user's code raises in eval mode
        return NotRun(f"the model refuses it: {type(error).__name__}")
    return [_finding(now, after, sorted(fresh), subject)] if abs(now - after) > CHANGE * abs(after) else []


def _loss(buffers: Mapping[str, Tensor], subject: Subject) -> float:
    return float(losses_in_eval(subject.setup, subject.batch, seed=subject.seed, buffers=buffers)[0])


def _finding(now: float, after: float, paths: list[str], subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=paths[0],
        message="in eval mode the model uses buffers that only a pass in train mode computes",
        evidence={"now": now, "after": after, "buffers": paths},
        rows=(
            ("loss in eval mode now", f"{now:.6g}", f"with {len(paths)} buffers as they were made"),
            ("after one pass in train mode", f"{after:.6g}", "the same parameters"),
        ),
        notes=(
            "Run one batch in train mode before you evaluate, or use torch.nn.utils.parametrizations.spectral_norm.",
        ),
        reproduce=subject.reproduce(NAME),
    )
