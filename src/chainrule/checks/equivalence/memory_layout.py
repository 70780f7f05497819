"""memory-layout: the same numbers in another memory layout give another result.

What it checks
    Loss and gradient of the batch, and of the same batch with its axes stored in the opposite order.
Why it matters
    A kernel or an as_strided that trusts its input to be contiguous reads the wrong numbers when it is a transposed view,
    and says nothing.
How it decides
    Eval mode, own dtype. Both passes compute the same formulas on the same numbers, so they may differ by rounding: the
    loss by what two evaluations of the graph may, the gradient by a thousandth (float32) of its norm. More is an error. A
    model that refuses the layout (view on a non-contiguous tensor) is not silent, and passes.
Broken
    y = torch.as_strided(x, (x.shape[0], x.shape[1] // 2), (x.shape[1], 2))
Repaired
    y = x[:, ::2]
Limits
    Only the layout of the batch, not of what the model makes of it.
"""

from __future__ import annotations

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Pass, run_pass
from chainrule.checks.equivalence.rows import attempt, difference, sample, strided
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import forward_limit, unit

NAME = "memory-layout"


def check(subject: Subject) -> Outcome:
    """Compare two layouts of one batch."""
    if not any(tensor.dim() > 1 for tensor in tensors_of(subject.batch).values()):
        return NotRun("the batch has no tensor of two axes")
    few = sample(subject, 2)
    plain, other = _pass(subject, few), _pass(subject, strided(few))
    if isinstance(plain, NotRun):
        return plain
    if isinstance(other, NotRun) or _agree(plain, other, plain, subject):
        return []  # a model that raises on this layout is not silent
    again = _pass(subject, few, seed=subject.seed + 1)  # draws follow the layout of what they are drawn like
    if isinstance(again, NotRun) or _agree(plain, other, again, subject):
        return NotRun("forward draws random numbers in eval mode")
    return [_finding(plain, other, difference(plain, other), subject)]


def _agree(plain: Pass, other: Pass, again: Pass, subject: Subject) -> bool:
    """True if the two are no further apart than rounding and what the model itself changes when it runs again."""
    noise = abs(float(plain.loss) - float(again.loss))
    limit = forward_limit(plain.loss.dtype, len(subject.graph.nodes), float(plain.loss), noise).value
    allowed = 3 * difference(plain, again) + 4 * unit(plain.loss.dtype) ** 0.5
    return abs(float(plain.loss) - float(other.loss)) <= 4 * limit and difference(plain, other) <= allowed


def _pass(subject: Subject, batch: object, *, seed: int | None = None) -> Pass | NotRun:
    setup, seed = subject.setup, subject.seed if seed is None else seed
    return attempt(lambda: run_pass(setup, batch, training=False, seed=seed))


def _finding(plain: Pass, other: Pass, apart: float, subject: Subject) -> Finding:
    node = next((node for node in subject.graph.nodes if "as_strided" in str(node.op)), None)
    return Finding(
        check=NAME,
        severity="error",
        where=node.where if node else type(subject.setup.model).__name__,
        source=line_of(node.source) if node else None,
        message="the same batch in another memory layout gives another result",
        evidence={"loss": float(plain.loss), "other": float(other.loss), "gradient": apart},
        rows=(
            ("contiguous", f"{float(plain.loss):.9g}", "loss"),
            ("strided", f"{float(other.loss):.9g}", f"gradients differ by {apart:.1e} of their norm"),
        ),
        notes=("Call .contiguous() before a kernel or as_strided that computes addresses itself.",),
        reproduce=subject.reproduce(NAME),
    )
