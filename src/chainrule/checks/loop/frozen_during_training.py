"""frozen-during-training: parameters that were trained get no gradient any more.

What it checks
    A parameter that had gradients in the first steps still has one in the later steps.
Why it matters
    Saving or merging an adapter, an evaluation that sets requires_grad, a wrapper that freezes what it was handed: from then
    on a part of the model stands still while the loss still falls by the others.
How it decides
    Gradients that are not zero in earlier steps that were looked at, and none, or only zeros, in the last two: a warning, for
    freezing in stages can be meant.
Broken
    def save(model):
        for p in model.adapter.parameters():
            p.requires_grad_(False)                      # for the export, and never undone
Repaired
    def save(model):
        state = {k: v.detach() for k, v in model.adapter.state_dict().items()}
Limits
    Steps 1, 2, 3 and then 4, 8, 16 ...: what is frozen is seen at the second of these after it.
"""

from __future__ import annotations

from torch import Tensor

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed, StepRecord

NAME = "frozen-during-training"
LAST = 2


def judge(observed: Observed) -> Outcome:
    """Which parameters have lost their gradient."""
    found, judged = [], False
    for name in dict.fromkeys(record.optimizer for record in observed.steps):
        records = [record for record in observed.steps if record.optimizer == name]
        if len(records) > LAST:
            judged = True
            lost = [path for path in records[-1].before if _lost(path, records)]
            if lost and len(lost) < len(records[-1].before):
                found.append(_finding(name, lost, records[-LAST], observed))
    return found if judged else NotRun("fewer than three steps were looked at")


def _lost(path: str, records: list[StepRecord]) -> bool:
    earlier = [path in record.once(_trained) for record in records[:-LAST] if path in record.before]
    later = [path in record.once(_trained) for record in records[-LAST:]]
    return bool(earlier) and all(earlier) and not any(later)


def _trained(record: StepRecord) -> set[str]:
    """The parameters whose gradient is not zero."""
    return {path for path, grad in record.gradients.items() if _flows(grad)}


def _flows(grad: Tensor | None) -> bool:
    return grad is not None and bool((grad.coalesce().values() if grad.is_sparse else grad).any())


def _finding(name: str, lost: list[str], record: StepRecord, observed: Observed) -> Finding:
    listed = ", ".join(lost[:5]) + (" ..." if len(lost) > 5 else "")
    files = [event for event in observed.of("save", "load") if event.update <= record.number]
    return Finding(
        check=NAME,
        severity="warning",
        where=lost[0],
        source=files[-1].line if files else record.line,
        message=f"{len(lost)} of {len(record.before)} parameters of {name} get no gradient "
        f"from step {record.number} on: {listed}",
        evidence={"optimizer": name, "parameters": lost[:50], "since": record.number},
        notes=(
            (f"A {files[-1].kind} came before it. " if files else "")
            + "Look for requires_grad_(False), detach and no_grad on the way to them.",
        ),
    )
