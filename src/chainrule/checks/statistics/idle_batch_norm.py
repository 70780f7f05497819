"""idle-batch-norm: a batch norm that normalises nothing.

What it checks
    Batch norms whose running statistics are still the initial zeros and ones while they run in eval mode in a model that
    trains, and batch norms whose running statistics can never move, or follow only the latest batch.
Why it matters
    Such a layer multiplies by 1. It looks like a normalised network and trains like one without. Statistics that follow only
    the latest batch make evaluation depend on which batch came last: often another library's convention for momentum.
How it decides
    Eval mode, num_batches_tracked of 0 and running statistics of 0 and 1 exactly; a loaded model has others. momentum of 0
    never moves; above 0.9 follows the last batch (PyTorch's momentum weighs the new batch, Keras' the old mean). Warnings.
Broken
    norm = nn.BatchNorm1d(8, momentum=0.99)
Repaired
    norm = nn.BatchNorm1d(8, momentum=0.01)
Limits
    Only torch.nn's batch norms.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "idle-batch-norm"
LATEST = 0.9


def check(subject: Subject) -> Outcome:
    """Look at the mode and the statistics of every batch norm."""
    model = subject.setup.module
    norms = {path: module for path, module in model.named_modules() if isinstance(module, _BatchNorm)}
    norms = {path: norm for path, norm in norms.items() if norm.track_running_stats and norm.running_mean is not None}
    if not norms:
        return NotRun("the model has no batch norm with running statistics")
    found = ((path, _wrong(norm, model)) for path, norm in norms.items())
    return [_finding(path, *wrong, subject) for path, wrong in found if wrong]


def _wrong(norm: _BatchNorm, model: nn.Module) -> tuple[str, str] | None:
    """(what is wrong, what to do), or None."""
    if not norm.training and model.training and _untouched(norm):
        return "this batch norm runs in eval mode with statistics that were never measured: it does nothing", (
            "Call .train() on it, or load the statistics that it is to be frozen with."
        )
    if norm.training and norm.momentum == 0:
        return "momentum 0: the running statistics never move, and evaluation will use the initial ones", (
            "PyTorch's momentum is the weight of the new batch: use 0.1 or 0.01."
        )
    if norm.training and norm.momentum is not None and norm.momentum > LATEST:
        return f"momentum {norm.momentum:g}: the running statistics are those of the latest batch alone", (
            f"PyTorch's momentum is the weight of the new batch: write {1 - norm.momentum:.3g} for Keras' {norm.momentum:g}."
        )
    return None


def _untouched(norm: _BatchNorm) -> bool:
    mean, variance, count = norm.running_mean, norm.running_var, norm.num_batches_tracked
    fresh = mean is not None and variance is not None and bool((mean == 0).all()) and bool((variance == 1).all())
    return fresh and (count is None or int(count) == 0)


def _finding(path: str, message: str, advice: str, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=path,
        message=message,
        notes=(advice,),
        reproduce=subject.reproduce(NAME),
    )
