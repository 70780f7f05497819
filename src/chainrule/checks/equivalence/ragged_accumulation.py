"""ragged-accumulation: the mean over micro-batches is not the mean over the batch.

What it checks
    Where the set-up accumulates (Setup.accumulate > 1): the gradient of a batch against those of its parts, each with its
    own mean, as a loop that accumulates adds them.
Why it matters
    A mean over tokens divides by the number of labelled tokens. Parts of 2 and of 30 tokens then weigh the same, though one
    holds fifteen times as much: rows with few labels count too much, and results differ from training on the full batch.
How it decides
    In float64, with dropout off. The weights w with G(batch) = Σ w·g(part) are solved for. If no weights fit, examples
    depend on each other and the check says nothing. If they fit and are not all equal, the loop's sum is another gradient:
    an error, or a warning if Setup.step is given, which may weigh the parts itself. Equal weights, whatever they are, are
    right: a mean of equal parts, or a sum over a fixed number of tokens.
Broken
    loss = F.cross_entropy(logits, labels, ignore_index=-100) / accumulate
Repaired
    loss = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / labels_in_all_micro_batches
Limits
    Only the raggedness that the rows of the first batch have. A batch of one row shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from chainrule.checks.copies import Pass
from chainrule.checks.equivalence.rows import RECORDED, exact_pass, rows_of, sample, taken
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Line, NotRun, Outcome

NAME = "ragged-accumulation"
PARTS = 4
FITS = 1e-6  # |G - Σ w g| / |G|: what is left after a fit through a Gram matrix in float64
EQUAL = 1e-4  # of the weights: how well such a fit determines them


def check(subject: Subject) -> Outcome:
    """Solve for the weights with which the parts make up the whole."""
    if subject.setup.accumulate < 2:
        return NotRun("the set-up does not accumulate")
    if subject.fixed_shapes:
        return RECORDED
    batch = sample(subject)
    rows = rows_of(batch)
    if rows is None or rows < 2:
        return NotRun("the batch cannot be cut into rows")
    size = max(1, rows // PARTS)
    count = rows // size  # what is left over is left out: parts of unequal size would have unequal weights by right
    cuts = [torch.arange(size * count), *torch.arange(size * count).tensor_split(count)]
    passes = [exact_pass(subject, taken(batch, cut)) for cut in cuts]
    if refused := [result for result in passes if isinstance(result, NotRun)]:
        return refused[0]
    whole, *parts = (result for result in passes if isinstance(result, Pass))
    weights, left, naive = _fit(whole, parts)
    if left > FITS:
        return NotRun("an example's gradient depends on the other examples of the batch")
    even = float((weights - weights.mean()).abs().max()) <= EQUAL * float(weights.abs().max())
    return [] if even else [_finding(weights, naive, size, subject)]


def _fit(whole: Pass, parts: Sequence[Pass]) -> tuple[Tensor, float, float]:
    """(weights, what is left of the whole, how far the whole is from an even sum), the latter two relative."""
    vectors = [whole, *parts]
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(len(vectors)), 2):
        gram[i, j] = gram[j, i] = _inner(vectors[i], vectors[j])
    inner, toward, size = gram[1:, 1:], gram[1:, 0], gram[0, 0].clamp_min(1e-300)
    weights = torch.linalg.lstsq(inner, toward[:, None], driver="gelsd").solution[:, 0]
    even = torch.full_like(weights, float(weights.mean()))
    return weights, _distance(weights, inner, toward, size), _distance(even, inner, toward, size)


def _distance(weights: Tensor, inner: Tensor, toward: Tensor, size: Tensor) -> float:
    square = size - 2 * weights @ toward + weights @ inner @ weights
    return float((square.clamp_min(0) / size).sqrt())


def _inner(one: Pass, other: Pass) -> float:
    pairs = ((g, other.gradients[path]) for path, g in one.gradients.items())
    return sum(float((g.double() * h.double()).sum()) for g, h in pairs if g is not None and h is not None)


def _finding(weights: Tensor, naive: float, rows: int, subject: Subject) -> Finding:
    shares = weights / weights.sum()
    return Finding(
        check=NAME,
        severity="error" if subject.setup.step is None else "warning",
        where="loss",
        source=_line(subject),
        message=f"accumulating micro-batches gives another gradient than the full batch: {naive:.1%} of it is wrong",
        evidence={"weights": weights.tolist(), "error": naive, "accumulate": subject.setup.accumulate},
        rows=(
            ("weight of each part in the batch", ", ".join(f"{share:.3f}" for share in shares), f"{rows} rows each"),
            ("weight in your loop", f"{1 / len(shares):.3f} each", "a mean of means"),
        ),
        notes=(
            "Sum the loss over the tokens of each micro-batch and divide by the number of labelled tokens of all micro-batches "
            "of the update.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _line(subject: Subject) -> Line | None:
    """The line of the loss: of the graph's last formula."""
    return line_of(subject.graph.nodes[-1].source) if subject.graph.nodes else None
