"""collective-mismatch: the ranks of a distributed run call collectives that do not fit each other.

What it checks
    The n-th collective call of one rank is that of the others: the same operation, dtype and number of entries, and in an
    all_to_all what one rank gives to another is what that one takes from it.
Why it matters
    Such a call hangs until its time is out, minutes later and at another place, or it mixes up the data without a word.
How it decides
    Each rank shows its arguments before the call; the one that comes last sees the others'. Any difference is an error, and is
    said before the call is made.
Broken
    dist.all_to_all_single(out, tokens, out_counts, in_counts)   # counts by each rank's own routing
Repaired
    dist.all_to_all_single(out_counts, in_counts)                # first exchange the counts
    dist.all_to_all_single(out, tokens, out_counts.tolist(), in_counts.tolist())
Limits
    Calls of functions in torch.distributed on the whole world, in steps that are looked at closely. Not those in subgroups, nor
    what DistributedDataParallel does by itself.
"""

from __future__ import annotations

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed
from chainrule.watch.replica import Disagreement

NAME = "collective-mismatch"


def judge(observed: Observed) -> Outcome:
    """The first call in which ranks do not fit each other."""
    if not (observed.replicas or observed.disagreements):
        return NotRun("the program is one process")
    return [_finding(call) for call in observed.disagreements[:1]]


def _finding(call: Disagreement) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=call.name,
        source=call.line,
        message=f"the ranks' calls do not fit: {call.how}",
        evidence={"call": call.name, "ranks": list(call.ranks)},
        notes=("It will hang, or mix up the data. Let every rank make the same calls in the same order.",),
    )
