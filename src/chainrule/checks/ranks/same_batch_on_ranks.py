"""same-batch-on-ranks: every rank of a distributed run trains on the same batches.

What it checks
    The batches that the ranks' DataLoaders gave before a step are not the same on all ranks.
Why it matters
    Averaging the same gradient is that gradient: two processes do the work of one, and an epoch is as long as on one device.
    The loss falls as it should, only no faster.
How it decides
    The fingerprints of the batches since the last step are the same on every rank, in two steps that were looked at and with
    different batches in the two, while the ranks train one model whose gradients are averaged: a warning.
Broken
    loader = DataLoader(data, batch_size=32, shuffle=True)
Repaired
    loader = DataLoader(data, batch_size=32, sampler=DistributedSampler(data))
Limits
    Batches that do not come from a DataLoader are not seen, nor are ranks that draw from the same data with other seeds. Ranks
    that hold shards of one model must see the same batches: they do not hold the same parameters, and nothing is said.
"""

from __future__ import annotations

from chainrule.checks.ranks.looks import Look, alike, meant_as_one, replicated
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "same-batch-on-ranks"
LEAST = 2


def judge(observed: Observed) -> Outcome:
    """Whether the ranks see the same data."""
    seen = [look for look in observed.replicas if all(replica.batches for replica in look)]
    if len(seen) < LEAST:
        return NotRun("fewer than two steps with batches of a DataLoader were seen of all ranks")
    same = [look for look in seen if alike(repr(replica.batches) for replica in look)]
    different = len({look[0].batches for look in same})
    one_model = all(replicated(look) and meant_as_one(look) for look in same)
    return [_finding(same)] if same == seen and different >= LEAST and one_model else []


def _finding(looks: list[Look]) -> Finding:
    first = looks[0][0]
    return Finding(
        check=NAME,
        severity="warning",
        where=first.optimizer,
        source=first.line,
        message=f"all {len(looks[0])} ranks train on the same batches",
        evidence={"steps": [look[0].number for look in looks], "ranks": len(looks[0])},
        notes=("Give the loader a DistributedSampler, and call its set_epoch in every epoch.",),
    )
