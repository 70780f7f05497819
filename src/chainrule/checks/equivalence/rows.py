"""Batches made of the user's own: some of its rows, its rows twice, its rows in another order or another memory layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chainrule.capture.batches import tensors_of, with_tensors
from chainrule.checks.copies import Pass, run_pass
from chainrule.checks.subject import Subject
from chainrule.finding import NotRun

SAMPLE = 4
RECORDED = NotRun("the loss of a script is known only for the rows that were recorded")


def rows_of(batch: Any) -> int | None:
    """Number of rows: the first axis that all tensors of the batch share; None if they do not share one."""
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors_of(batch).values()}
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else None


def taken(batch: Any, rows: Tensor) -> Any:
    """The batch with these rows, in this order."""
    return with_tensors(batch, lambda tensor: tensor[rows.to(tensor.device)])


def sample(subject: Subject, most: int = SAMPLE) -> Any:
    """The first rows of the batch, `most` at most and one fewer than it has.

    A probe need not be as large as what is trained on. One fewer, since a tensor whose first axis is not that of the rows
    (a weight for each of as many classes) then makes the user's code raise, and not another loss.
    """
    batch, rows = subject.batch, rows_of(subject.batch)
    if subject.fixed_shapes or rows is None or rows < 3:
        return batch
    return taken(batch, torch.arange(min(most, rows - 1)))


def strided(batch: Any) -> Any:
    """The same numbers, laid out in memory the other way round."""
    return with_tensors(batch, _strided)


def _strided(tensor: Tensor) -> Tensor:
    if tensor.dim() < 2 or tensor.layout is not torch.strided:
        return tensor
    axes = tuple(reversed(range(tensor.dim())))
    return tensor.permute(axes).contiguous().permute(axes)


def exact_pass(
    subject: Subject, batch: Any, *, training: bool | None = False, seed: int | None = None
) -> Pass | NotRun:
    """Loss and gradients in float64, dropout off; why not, if the user's code refuses this batch or float64."""
    return attempt(
        lambda: run_pass(
            subject.setup,
            batch,
            training=training,
            dtype=torch.float64,
            seed=subject.seed if seed is None else seed,
        )
    )


def attempt(run: Callable[[], Pass]) -> Pass | NotRun:
    """What the pass gives, or the error of the user's own code as a reason."""
    try:
        result = run()
        return Pass(result.loss, {path: g if g is None else g.to_dense() for path, g in result.gradients.items()})
    except Exception as error:  # whatever the user's code raises on a batch that it was not written for
        return NotRun(f"the model refuses it: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def difference(one: Pass, other: Pass, factor: float = 1.0) -> float:
    """|g1 - factor · g2| / |g1| over all parameters; 0 if there is no gradient at all."""
    apart = size = 0.0
    for path, g in one.gradients.items():
        h = other.gradients.get(path)
        if g is not None:
            size += float(g.double().square().sum())
        if g is not None or h is not None:
            left = 0.0 if g is None else g.double()
            right = 0.0 if h is None else factor * h.double()
            apart += float(torch.as_tensor(left - right).square().sum())
    return float((apart / size) ** 0.5) if size else 0.0
