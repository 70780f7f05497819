"""constant-labels: every label of the data is the same.

What it checks
    The labels that come from the batch, over the first batches of the set-up (four at most).
Why it matters
    A model that ignores its input then has a perfect loss. Integer labels divided by 255, a column that was read twice, or
    a file sorted by class and not shuffled all look like this.
How it decides
    One value in all of at least 16 labels is a warning: at 19 of 20 labels in one class 16 equal ones still have a chance
    of 44 %, so it is no error; with more batches the chance falls. Of a script one batch is known: it takes 64 (4 %).
Broken
    labels = torch.tensor([3, 7, 1, 9, 0, 2, 8, 4] * 2) // 255
Repaired
    labels = torch.tensor([3, 7, 1, 9, 0, 2, 8, 4] * 2)
Limits
    Labels that the loss makes itself (the ones and zeros of a GAN) are not looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.capture.batches import tensors_of
from chainrule.checks.flow import REARRANGING, SELECTING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Leaf, Node

NAME = "constant-labels"
LABELS, LABELS_OF_A_SCRIPT = 16, 64


def check(subject: Subject) -> Outcome:
    """Look at the labels of the first batches."""
    flow = Flow(subject.exact, subject.values)
    labels: list[tuple[Node, Leaf]] = []
    for node, _, target in flow.losses():
        maker = flow.maker(target, through=REARRANGING | SELECTING)
        if isinstance(maker, Leaf) and maker.kind == "batch":
            labels.append((node, maker))
    if not labels:
        return NotRun("no label of the batch goes straight into a known loss")
    return [finding for node, leaf in labels for finding in _judge(node, leaf, subject)]


def _judge(node: Node, leaf: Leaf, subject: Subject) -> list[Finding]:
    values = [tensors.get(leaf.path) for tensors in map(tensors_of, subject.batches)]
    flat = torch.cat([_kept(value, node) for value in values if value is not None] or [leaf.value.flatten()])
    least = LABELS if subject.tape is None else LABELS_OF_A_SCRIPT
    if flat.numel() < least or bool((flat != flat[0]).any()):
        return []
    return [_finding(node, leaf, flat, subject)]


def _kept(value: Tensor, node: Node) -> Tensor:
    """The labels that the loss looks at."""
    flat = value.detach().flatten().to(torch.float64)
    return flat[flat != node.arguments["ignore_index"]] if "ignore_index" in node.arguments else flat


def _finding(node: Node, leaf: Leaf, labels: Tensor, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=f"batch{leaf.path}",
        source=line_of(node.source),
        message=f"all {labels.numel():,} labels of the first batches are {float(labels[0]):g}",
        evidence={"labels": labels.numel(), "value": float(labels[0])},
        notes=(
            "Look at how the labels are read, scaled and shuffled: a constant is learnt without looking at the input.",
        ),
        reproduce=subject.reproduce(NAME),
    )
