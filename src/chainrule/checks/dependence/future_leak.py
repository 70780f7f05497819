"""future-leak: a causal model's output depends on inputs that come later.

What it checks
    The gradient of outputs at positions <= t with respect to the inputs at positions > t is zero: for several t, as the
    model is trained and in eval mode.
Why it matters
    A model that predicts the next token and can see it learns to copy. The loss looks excellent, and what it generates is
    garbage. A mask that is missing on one path, a normalisation over time, a view where a transpose was meant: nothing
    raises.
How it decides
    Gaussian cotangents on the outputs up to t, pulled back by autograd to what the embeddings returned (or to floating
    inputs); the part at positions > t, relative to the part up to t, must be below 100 u of float32, which is what a
    transform over all positions (an FFT) rounds; a masked attention gives exactly zero. Only positions that the loss
    scores count, unless Setup.causal=True. An error if causality is declared, or if the loss asks each position for the
    very token that leaks (read from dL/dlogits); a warning if only the model's name says so. The place is the innermost
    module whose inputs up to t stay the same, and its outputs do not, when the later inputs are replaced.
Broken
    weights = (q @ k.transpose(-2, -1) / math.sqrt(d)).softmax(-1)
Repaired
    weights = (q @ k.transpose(-2, -1) / math.sqrt(d)).masked_fill(future, -math.inf).softmax(-1)
Limits
    One batch. Batch statistics are held fixed. What leaks only once logits have grown (a mask of -1e4) is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.copies import Copies
from chainrule.checks.dependence.claims import Reading, reading_of
from chainrule.checks.dependence.layout import Axes, position_axes
from chainrule.checks.dependence.locate import ROUNDING, leaking_module, mixing_line
from chainrule.checks.dependence.taps import Alter, Run, Tap, gradients_of, in_each_mode, on_tapped_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "future-leak"


@dataclass(frozen=True)
class Leak:
    """Outputs up to position `until` depend on the input at position `later`; `ratio` of the gradient comes from there."""

    ratio: float
    until: int
    later: int
    axes: Axes


def check(subject: Subject) -> Outcome:
    """At most one finding: the strongest leak in the first mode that has one."""
    if subject.setup.causal is False:
        return NotRun("Setup.causal is False")
    return on_tapped_copies(subject, _look)


def _look(subject: Subject, copies: Copies) -> Outcome:
    def leaking(result: Run, mode: str) -> Outcome | None:
        reading = reading_of(result, copies, subject.setup)
        if not reading.why:
            sequences = result.output.dim() > 2
            return NotRun("nothing says that the model is causal; claim it by Setup.causal=True", missing=sequences)
        found = [[*leaks(subject, result, tap, axes)] for tap, axes in pairs_of(result, reading)]
        worst = max((leak for part in found for leak in part), key=lambda leak: leak.ratio, default=None)
        if worst is not None and worst.ratio > ROUNDING:
            return [_finding(subject, copies, worst, reading, mode)]
        return [] if found else None

    return in_each_mode(copies, leaking, "no input of the model has the axis of positions that its output has")


def pairs_of(result: Run, reading: Reading) -> Iterator[tuple[Tap, Axes]]:
    """The inputs that have positions. Where the targets' own tokens are known, these alone: an encoder may see all."""
    ids = reading.alignment.ids if reading.alignment and reading.alignment.offset == 1 else None
    for tap in result.taps:
        if ids is not None and not (tap.indices is not None and _equal(tap.indices, ids, reading)):
            continue
        axes = position_axes(tap, result.output, time_first=reading.time_first)
        if axes is not None:
            yield tap, axes


def _equal(indices: Tensor, ids: Tensor, reading: Reading) -> bool:
    return torch.equal(indices.T if reading.time_first and indices.dim() == 2 else indices, ids)


def leaks(subject: Subject, result: Run, tap: Tap, axes: Axes) -> Iterator[Leak]:
    """What comes from later positions, for several positions up to which the output is looked at."""
    index = next(i for i, other in enumerate(result.taps) if other is tap)
    draw = torch.randn(result.output.shape, generator=subject.generator(41)).to(result.output)
    if subject.setup.causal is None and result.score is not None:
        draw = draw * _scored(result.score, axes.output)
    rows = _rows(axes, result.output)
    for untils in _cuts(axes.length, rows):
        cotangent = draw * _upto(untils, axes, result.output)
        gradient = gradients_of(result, cotangent)[index].movedim((_other(axes.tap), axes.tap), (0, 1))
        norms_RT = gradient.reshape(rows, axes.length, -1).float().norm(dim=2)
        later_RT = torch.arange(axes.length, device=norms_RT.device) > untils.to(norms_RT.device)[:, None]
        outside = (norms_RT * later_RT).norm(dim=1) / (norms_RT * ~later_RT).norm(dim=1).clamp_min(1e-30)
        worst = int(outside.argmax())
        if float(norms_RT[worst].norm()) > 0:
            later = int((norms_RT * later_RT)[worst].argmax())
            yield Leak(float(outside[worst]), int(untils[worst]), later, axes)


def _cuts(length: int, rows: int) -> Iterator[Tensor]:
    """The positions up to which outputs are looked at, one for each row: in as few passes as make three of them."""
    cuts = torch.tensor(sorted({length // 3, length // 2, length - 2}))
    for start in range(0, len(cuts), rows):
        yield cuts[(start + torch.arange(rows)) % len(cuts)]


def _other(axis: int) -> int:
    """The axis of examples beside that of positions."""
    return 1 if axis == 0 else 0


def _rows(axes: Axes, output: Tensor) -> int:
    return output.shape[_other(axes.output)]


def _scored(score: Tensor, axis: int) -> Tensor:
    """1 at the positions that the loss scores, for each example."""
    others = [a for a in range(score.dim()) if a not in (0, axis)]
    return (score != 0).any(dim=others[0], keepdim=True).to(score) if len(others) == 1 else torch.ones_like(score)


def _upto(untils: Tensor, axes: Axes, output: Tensor) -> Tensor:
    """1 up to each row's own position, in the output's axes."""
    rows, length = len(untils), output.shape[axes.output]
    upto_RT = torch.arange(length) <= axes.before + untils[:, None]
    shape = [1] * output.dim()
    shape[_other(axes.output)], shape[axes.output] = rows, length
    table = upto_RT if _other(axes.output) < axes.output else upto_RT.T
    return table.reshape(shape).to(output)


def _finding(subject: Subject, copies: Copies, leak: Leak, reading: Reading, mode: str) -> Finding:
    module = leaking_module(copies, _replaced_after(subject, leak), lambda tensor: _first(tensor, leak))
    model = type(copies.model).__name__
    return Finding(
        check=NAME,
        severity="error" if reading.sure else "warning",
        where=module or model,
        source=mixing_line(subject.graph, module) if module is not None else None,
        message=f"the output up to position {leak.until} depends on the input at position {leak.later}",
        evidence={
            "ratio": leak.ratio,
            "until": leak.until,
            "later": leak.later,
            "mode": mode,
            "module": module,
            "claim": reading.why,
        },
        rows=(
            ("gradient from later positions", f"{leak.ratio:.2e}", "of that from earlier ones"),
            ("allowed", f"{ROUNDING:.1e}", "100 u of float32; a masked attention gives exactly 0"),
        ),
        notes=(
            f"The model is taken for causal because {reading.why}; looked at {mode}.",
            f"Inputs after position {leak.until} were replaced: "
            + (
                f"{module or model} is the first module whose inputs up to there stay and whose outputs change. "
                * bool(module)
            )
            + "Look for a mask that is missing or not handed on, a normalisation over time, a view in place of a transpose.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _replaced_after(subject: Subject, leak: Leak) -> Alter:
    """Other inputs at every later position, the same ones each time."""

    def alter(tensor: Tensor, _: Tensor | None) -> Tensor:
        axis = leak.axes.tap
        if tensor.dim() <= axis or tensor.shape[axis] != leak.axes.length:
            return tensor
        noise = torch.randn(tensor.shape, generator=subject.generator(42)).to(tensor) * tensor.detach().std()
        shape = [1] * tensor.dim()
        shape[axis] = leak.axes.length
        later = (torch.arange(leak.axes.length, device=tensor.device) > leak.until).to(tensor).reshape(shape)
        return tensor + noise * later

    return alter


def _first(tensor: Tensor, leak: Leak) -> Tensor | None:
    """The part of a module's input or output up to the position, wherever its axis of positions is."""
    first, length, before = [leak.axes.tap, leak.axes.output], leak.axes.length, leak.axes.before
    for axis in [axis for axis in [*first, *range(1, tensor.dim())] if axis < tensor.dim()]:
        if tensor.shape[axis] in (length, length + before):
            return tensor.narrow(axis, 0, tensor.shape[axis] - length + leak.until + 1)
    return None
