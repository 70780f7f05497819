"""detached-ddp: DistributedDataParallel averages gradients that the parameters no longer have.

What it checks
    The nodes that accumulate the parameters' gradients are those on which DistributedDataParallel put its hooks.
Why it matters
    It hooks these nodes when it is made. A conversion to another dtype or device gives a parameter a new node, also on the way
    back (ddp.double(); ddp.float()). From then on no gradient is averaged, each rank trains a model of its own, and only
    the first rank's is saved (pytorch#104336; so in torch 2.13).
How it decides
    The node of each parameter, compared with the one that it had when the wrapper was made: an error if it is another one.
Broken
    model = DistributedDataParallel(model)
    model.double()
    model.float()
Repaired
    model = DistributedDataParallel(model.double().float())   # convert and move first, wrap last
Limits
    Only wrappers made while chainrule looks on: begin `watch` before the wrapper is made.
"""

from __future__ import annotations

from chainrule.checks.ranks.looks import listed
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed
from chainrule.watch.replica import Replica

NAME = "detached-ddp"


def judge(observed: Observed) -> Outcome:
    """Which parameters DistributedDataParallel has lost."""
    wrapped = [replica for look in observed.replicas for replica in look if replica.wrapped]
    if not wrapped:
        return NotRun("no DistributedDataParallel was seen")
    lost = {replica.optimizer: replica for replica in reversed(wrapped) if replica.detached}
    return [_finding(replica) for replica in lost.values()]


def _finding(replica: Replica) -> Finding:
    count, held = len(replica.detached), len(replica.before)
    which = (
        f"averages none of the {held} parameters"
        if count == held
        else f"no longer averages {count} of {held} parameters, {listed(replica.detached)}"
    )
    return Finding(
        check=NAME,
        severity="error",
        where=replica.detached[0],
        source=replica.line,
        message=f"DistributedDataParallel {which}: they were converted or moved after it was made",
        evidence={"optimizer": replica.optimizer, "parameters": list(replica.detached[:50]), "step": replica.number},
        notes=("Convert and move the model first, then wrap it; after a conversion wrap it anew.",),
    )
