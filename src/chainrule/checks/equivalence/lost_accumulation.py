"""lost-accumulation: a second backward does not add to the first.

What it checks
    Two calls of backward in a row, on different examples, leave in .grad the sum of what each leaves alone.
Why it matters
    A kernel or hook that writes into .grad in place of adding, or that hands out the same buffer at every call, makes each
    micro-batch erase the ones before it. With one backward per update nothing shows.
How it decides
    g(A then B) against g(A) + g(B) on the user's own model, in its own dtype, with the same random numbers; buffers are put
    back between. Further apart than 64 units of rounding plus three times what g(A) changes when it is made again: an error
    if the set-up accumulates, else a warning.
Broken
    weight.grad = gradient  # inside the backward of a custom Function
Repaired
    return gradient  # and autograd adds it
Limits
    Not made where backward itself changes parameters (an optimizer that steps inside backward).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.preserve import preserved
from chainrule.checks.equivalence.rows import rows_of, sample, taken
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import unit

NAME = "lost-accumulation"
UNITS = 64.0
Gradients = Mapping[str, Tensor]


def check(subject: Subject) -> Outcome:
    """Compare two backwards in a row with the sum of the two."""
    setup = subject.setup
    batch = sample(subject)
    rows = rows_of(batch)
    other = batch if subject.fixed_shapes or rows is None or rows < 2 else taken(batch, torch.arange(1))
    model = setup.module
    with preserved(model, setup.loss, batch, contents=True), torch.enable_grad():
        buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        try:
            first = _backward(subject, model, buffers, (batch,))
            if any(not torch.equal(before[name], p) for name, p in model.named_parameters()):
                return NotRun("backward itself changes parameters")
            second = _backward(subject, model, buffers, (other,))
            both = _backward(subject, model, buffers, (batch, other))
            again = first if _agree(first, second, both) else _backward(subject, model, buffers, (batch,))
        except Exception as error:  # whatever the user's code raises on a part of its batch
            return NotRun(f"the model refuses it: {type(error).__name__}")
    lost = {name: gap for name in both if (gap := _gap(name, first, second, both, again)) is not None}
    return [_finding(lost, subject)] if lost else []


def _backward(subject: Subject, model: nn.Module, buffers: Mapping[str, Tensor], batches: tuple[Any, ...]) -> Gradients:
    """What backward leaves in .grad after these batches."""
    for parameter in model.parameters():
        parameter.grad = None
    for batch in batches:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
        torch.manual_seed(subject.seed)
        torch.autograd.backward(subject.setup.loss(model, batch))
    return {name: p.grad.detach().clone().to_dense() for name, p in model.named_parameters() if p.grad is not None}


def _agree(first: Gradients, second: Gradients, both: Gradients) -> bool:
    return all(_gap(name, first, second, both, first) is None for name in both)


def _gap(name: str, first: Gradients, second: Gradients, both: Gradients, again: Gradients) -> float | None:
    """|g(AB) - g(A) - g(B)| relative to the sum's size, if it is more than rounding and noise; else None."""
    a, b = first.get(name), second.get(name)
    if a is None or b is None or not a.is_floating_point():
        return None
    size = float(a.double().norm() + b.double().norm())
    gap = float((both[name].double() - a.double() - b.double()).norm())
    noise = float((again[name].double() - a.double()).norm()) if name in again else 0.0
    return gap / size if gap > UNITS * unit(a.dtype) * size + 3 * noise else None


def _finding(lost: Mapping[str, float], subject: Subject) -> Finding:
    worst = max(lost, key=lambda name: lost[name])
    return Finding(
        check=NAME,
        severity="error" if subject.setup.accumulate > 1 else "warning",
        where=worst,
        message=f"a second backward does not add to the first in {len(lost)} parameters: micro-batches erase each other",
        evidence={"parameters": dict(lost)},
        rows=(("missing", f"{lost[worst]:.1%}", f"of g(A) + g(B), in {worst}"),),
        notes=(
            "Look for code that assigns to .grad or writes into a buffer that it returned before: return the gradient, and "
            "let autograd add it.",
        ),
        reproduce=subject.reproduce(NAME),
    )
