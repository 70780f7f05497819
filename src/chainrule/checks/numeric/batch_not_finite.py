"""batch-not-finite: a batch holds inf or nan.

What it checks
    The floating-point tensors of the first batches of the set-up (four at most).
Why it matters
    One nan in the inputs makes the loss nan, the gradient nan, and after the next step every weight.
How it decides
    By looking. nan or +inf in a batch whose loss is not finite is an error; a model that deals with them passes, and so does
    -inf, which attention masks are made of.
Broken
    batches = [torch.tensor([[1.0, float("nan")]])]
Repaired
    batches = [torch.nan_to_num(torch.tensor([[1.0, float("nan")]]))]
Limits
    Only the first batches. If the first batch makes the loss nan that is said at once, before any check.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.capture.batches import tensors_of
from chainrule.checks.numeric.losses import finite_loss
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "batch-not-finite"


def check(subject: Subject) -> Outcome:
    """Look at the first batches; where one is bad, look at its loss."""
    batches = [tensors_of(batch) for batch in subject.batches]
    if not any(tensor.is_floating_point() for tensors in batches for tensor in tensors.values()):
        return NotRun("the batches hold no floating-point numbers")
    return [
        _finding(number, path, tensor, subject)
        for number, tensors in enumerate(batches)
        for path, tensor in tensors.items()
        if _bad(tensor) and not finite_loss(subject, subject.batches[number])
    ]


def _bad(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    return int((tensor.isnan() | (tensor == torch.inf)).sum())


def _finding(number: int, path: str, tensor: Tensor, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=f"batch {number}{path}",
        message=f"{_bad(tensor):,} of {tensor.numel():,} numbers are inf or nan",
        evidence={"batch": number, "path": path, "bad": _bad(tensor)},
        notes=(
            "Drop or fill such rows where the data are read (torch.nan_to_num), and find out where they come from.",
        ),
        reproduce=subject.reproduce(NAME),
    )
