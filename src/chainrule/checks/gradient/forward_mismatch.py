"""forward-mismatch: the captured graph does not compute the user's loss.

What it checks
    The loss of the graph, run in the user's own dtype, equals the loss of the user's model on the same batch. The model is
    run twice with the same random state, which measures how deterministic it is.
Why it matters
    All other stages work on the graph. If it is another function, they prove nothing about the user's model.
How it decides
    |graph - model| <= 8 u √n |loss| for n formulas of unit roundoff u (Higham & Mary, SISC 41, A2815, 2019), or three times
    the difference of the model's own two runs, whichever is larger.
Broken
    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls
Repaired
    def forward(self, x):
        return self.linear(x)
Limits
    One batch. A branch that this batch does not take is not seen.
"""

from __future__ import annotations

import time

from chainrule.autodiff.evaluate import evaluate, loss_of
from chainrule.capture.eager import user_loss
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.tolerance import forward_limit

NAME = "forward-mismatch"


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 0: the graph's loss against the model's own, in the user's dtype."""
    start = time.perf_counter()
    graph = subject.graph
    first, second = (user_loss(subject.setup.model, subject.setup.loss, subject.batch) for _ in range(2))
    ours = loss_of(graph, evaluate(graph))
    noise = abs(float(first) - float(second))
    limit = forward_limit(first.dtype, len(graph.nodes), float(first), noise)
    difference = abs(float(ours) - float(first))
    repeat = "run twice, bitwise the same" if noise == 0 else f"run twice, {noise:.1e} apart"
    summary = (
        f"graph of {len(graph.nodes)} formulas = model within {difference:.1e} of loss {float(first):.6g}; {repeat}"
    )
    findings = (
        [] if difference <= limit.value else [_finding(float(first), float(ours), limit.value, limit.reason, subject)]
    )
    verdict: Verdict = "fail" if findings else "pass"
    return StageResult("0 forward", verdict, summary, None, time.perf_counter() - start), findings


def _finding(theirs: float, ours: float, limit: float, reason: str, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=type(subject.setup.model).__name__,
        message="the captured graph does not compute this model's loss, so nothing was proved",
        evidence={"model": theirs, "graph": ours, "allowed": limit},
        rows=(
            ("your model", f"{theirs:.9e}", ""),
            ("graph", f"{ours:.9e}", f"{abs(ours - theirs):.1e} apart, allowed {limit:.1e}: {reason}"),
        ),
        notes=(
            "Forward depends on something that changes from call to call: a counter, a cache, a file, the time, or random "
            "numbers that come from outside torch. Make it an input, or fix it while checking.",
        ),
        reproduce=subject.reproduce(NAME),
    )
