"""no-labels: a batch in which every label is ignored.

What it checks
    The labels of the first batches (four at most) of every cross entropy or nll_loss with an ignored index.
Why it matters
    The mean over no label at all is 0/0 = nan, and after one step so are all weights. Short documents, masks that hit every
    token, or micro-batches cut too small do it.
How it decides
    A batch whose labels all equal the ignored index, and whose loss is not finite: an error.
Broken
    loss = F.cross_entropy(torch.randn(2, 5), torch.tensor([-100, -100]))
Repaired
    loss = F.cross_entropy(torch.randn(2, 5), torch.tensor([-100, 3]))
Limits
    Labels that the loss computes from something else than one tensor of the batch.
"""

from __future__ import annotations

import torch

from chainrule.capture.batches import tensors_of
from chainrule.checks.flow import REARRANGING, SELECTING, Flow
from chainrule.checks.numeric.losses import finite_loss
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Leaf, Node

NAME = "no-labels"
MEAN = 1  # ATen's number for reduction="mean"


def check(subject: Subject) -> Outcome:
    """Look for batches without a label."""
    flow = Flow(subject.exact, subject.values)
    losses = [(node, flow.maker(target, through=REARRANGING | SELECTING)) for node, _, target in flow.losses()]
    labelled = [(node, leaf) for node, leaf in losses if isinstance(leaf, Leaf) and leaf.kind == "batch"]
    labelled = [(node, leaf) for node, leaf in labelled if node.arguments.get("ignore_index") is not None]
    if not labelled:
        return NotRun("no loss ignores labels of the batch")
    return [finding for node, leaf in labelled for finding in _judge(node, leaf, subject)]


def _judge(node: Node, leaf: Leaf, subject: Subject) -> list[Finding]:
    ignored = node.arguments["ignore_index"]
    labels = [tensors_of(batch).get(leaf.path) for batch in subject.batches]
    empty = [i for i, tensor in enumerate(labels) if tensor is not None and bool((tensor == ignored).all())]
    if node.arguments["reduction"] != MEAN or torch.is_floating_point(leaf.value):
        return []
    empty = [i for i in empty if not finite_loss(subject, subject.batches[i])]
    if not empty:
        return []
    return [
        Finding(
            check=NAME,
            severity="error",
            where=f"batch {empty[0]}{leaf.path}",
            source=line_of(node.source),
            message=f"every label of batch {empty[0]} is {ignored}, which the loss ignores: its mean is 0/0 = nan",
            evidence={"batches": empty, "ignore_index": ignored},
            notes=("Leave such batches out, or divide the sum by the number of labels, at least 1.",),
            reproduce=subject.reproduce(NAME),
        )
    ]
