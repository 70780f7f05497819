"""batch-leak: one example's output depends on another example of the batch.

What it checks
    The gradient of one example's output with respect to the other examples' inputs is zero, as the model is trained and in
    eval mode.
Why it matters
    An attention along the wrong axis, a softmax or a normalisation over the batch, a reshape that mixes rows: the model
    sees neighbours that it will not have when it is used, and answers differ with the company they are in.
How it decides
    Gaussian cotangents on the first example's output, then on the last one's, pulled back to the embeddings or floating
    inputs; the others' part must be below 100 u of float32 of its own. Batch norm's statistics are held fixed: they couple
    by design. A module must pass on what is changed in the others, too: a backward that adds a term of the whole batch couples
    gradients alone. With Setup.batch_independent=True an error, without a claim a warning. Without the claim not looked at
    where the examples may be no rows (graphs, a matrix of all pairs).
Broken
    attention = nn.MultiheadAttention(width, heads)          # takes (T, B, D), is given (B, T, D)
Repaired
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
Limits
    It looks at the model's outputs. What the loss does with them, a contrastive loss or a mean over the batch, is not looked
    at, claimed or not; batch-order and duplicated-batch see a part of that. One batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Copies
from chainrule.checks.dependence.claims import Reading, reading_of
from chainrule.checks.dependence.layout import Axes, example_axes
from chainrule.checks.dependence.locate import ROUNDING, leaking_module, mixing_line
from chainrule.checks.dependence.taps import Alter, Run, gradients_of, in_each_mode, on_tapped_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "batch-leak"


@dataclass(frozen=True)
class Leak:
    """Example `example` depends on example `other`: `ratio` of its gradient comes from the others."""

    ratio: float
    example: int
    other: int
    axes: Axes


def check(subject: Subject) -> Outcome:
    """At most one finding: the strongest leak in the first mode that has one."""
    if subject.setup.batch_independent is False:
        return NotRun("Setup.batch_independent is False")
    return on_tapped_copies(subject, _look)


def _look(subject: Subject, copies: Copies) -> Outcome:
    def leaking(result: Run, mode: str) -> Outcome | None:
        reading = reading_of(result, copies, subject.setup)
        if reason := _unclear(subject, copies, result, reading):
            return NotRun(reason)
        leaks = list(_leaks(subject, result, reading))
        worst = max(leaks, key=lambda leak: leak.ratio, default=None)
        if worst is not None and worst.ratio > ROUNDING:
            module = leaking_module(copies, _others_replaced(subject, worst), lambda tensor: _own(tensor, worst))
            # None: nothing comes through in the forward pass, so that a backward couples them, by a balancing term
            return [] if module is None else [_finding(subject, copies, worst, mode, module)]
        return [] if leaks else None

    return in_each_mode(copies, leaking, "inputs and output have no axis of examples in common, or only one example")


def _unclear(subject: Subject, copies: Copies, result: Run, reading: Reading) -> str:
    """Why it is not clear which axis counts the examples; "" if it is."""
    if subject.setup.batch_independent:
        return ""
    tensors = [tensor for tensor in tensors_of(copies.batch).values() if tensor.dim() > 0]
    axis = 1 if reading.time_first else 0
    sizes = {tensor.shape[axis] if tensor.dim() > axis else tensor.shape[0] for tensor in tensors}
    if len(sizes) > 1:
        return "the batch's tensors do not agree on a number of examples"
    if any(tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1] for tensor in [*tensors, result.output]):
        return "a tensor of the batch or the output is a square matrix: examples may be pairs or nodes of a graph"
    by_ids = reading.alignment is not None and reading.alignment.offset is not None
    per_example = any(tensor.dim() == 1 for tensor in tensors)
    if not (reading.time_first or by_ids or per_example) and _takes_time_first(copies.model):
        return "a module that takes (T, B, D) leaves open which axis counts the examples"
    return ""


def _takes_time_first(model: nn.Module) -> bool:
    return any(getattr(module, "batch_first", None) is False for module in model.modules())


def _leaks(subject: Subject, result: Run, reading: Reading) -> Iterator[Leak]:
    draw = torch.randn(result.output.shape, generator=subject.generator(43)).to(result.output)
    pairs = [(i, example_axes(tap, result.output, time_first=reading.time_first)) for i, tap in enumerate(result.taps)]
    known = [(i, axes) for i, axes in pairs if axes is not None]
    for example in {0, known[0][1].length - 1} if known else ():
        gradients = gradients_of(result, draw * _only(example, known[0][1].output, result.output))
        for i, axes in known:
            norms = gradients[i].transpose(0, axes.tap).reshape(axes.length, -1).float().norm(dim=1)
            own, others = norms[example].clone(), norms.index_fill(0, torch.tensor(example, device=norms.device), 0)
            if float(norms.norm()) > 0:
                ratio = float(others.norm() / own) if float(own) else float("inf")
                yield Leak(ratio, example, int(others.argmax()), axes)


def _only(example: int, axis: int, output: Tensor) -> Tensor:
    shape = [1] * output.dim()
    shape[axis] = output.shape[axis]
    return (torch.arange(output.shape[axis], device=output.device) == example).to(output).reshape(shape)


def _finding(subject: Subject, copies: Copies, leak: Leak, mode: str, module: str) -> Finding:
    return Finding(
        check=NAME,
        severity="error" if subject.setup.batch_independent else "warning",
        where=module or type(copies.model).__name__,
        source=mixing_line(subject.graph, module),
        message=f"the output of example {leak.example} depends on example {leak.other}",
        evidence={
            "ratio": leak.ratio,
            "example": leak.example,
            "other": leak.other,
            "mode": mode,
            "module": module,
        },
        rows=(
            ("gradient from other examples", f"{leak.ratio:.2e}", "of that from its own"),
            ("allowed", f"{ROUNDING:.1e}", "100 u of float32; independent examples give exactly 0"),
        ),
        notes=(
            f"Looked at {mode}, batch norm's statistics held fixed. Look for an attention or recurrence that takes (T, B, D), "
            "a softmax, mean or norm over axis 0, a reshape that mixes rows.",
            "If examples are meant to see each other, say so by Setup.batch_independent=False.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _others_replaced(subject: Subject, leak: Leak) -> Alter:
    """Other inputs for every other example, the same ones each time."""

    def alter(tensor: Tensor, _: Tensor | None) -> Tensor:
        axis = leak.axes.tap
        if tensor.dim() <= axis or tensor.shape[axis] != leak.axes.length:
            return tensor
        noise = torch.randn(tensor.shape, generator=subject.generator(44)).to(tensor) * tensor.detach().std()
        return tensor + noise * (1 - _only(leak.example, axis, tensor))

    return alter


def _own(tensor: Tensor, leak: Leak) -> Tensor | None:
    """The part of a module's input or output that belongs to the example."""
    if tensor.dim() <= leak.axes.tap or tensor.shape[leak.axes.tap] != leak.axes.length:
        return None
    return tensor.select(leak.axes.tap, leak.example)
