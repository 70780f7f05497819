"""replica-drift: ranks that train one model no longer hold the same parameters.

What it checks
    After a step every rank of a distributed run holds, bit for bit, the parameters that the others hold, if they held the same
    before it; and gradients that are the same on all ranks update the same parameters.
Why it matters
    Each rank goes its own way, the averaged gradient is the gradient of none of their models, and the checkpoint is that of one
    rank. The loss falls at first. Real causes: the module is called and not its DistributedDataParallel wrapper, clipping on
    one rank only, another seed on each rank, a last micro-batch added after the gradients were averaged.
How it decides
    A hash of every parameter and gradient before and after the step, of every rank. All parameters that are not constant were
    the same, and one is not any more: an error where DistributedDataParallel holds them or their gradients were given to
    all_reduce, else a warning, for ranks can be meant to train apart. Not the same although their gradients are: an error.
    Tensors of different shape, or different from the start, are taken for shards. DistributedDataParallel with a
    communication hook of one's own: a warning.
Broken
    output = model(x)                                    # model = the module inside ddp = DistributedDataParallel(model)
Repaired
    output = ddp(x)
Limits
    Steps 1, 2, 3, 4, 8, 16 ..., once every rank has made them. Buffers are not compared: running means differ between ranks
    by design. Of a very large model only the smaller parameters are looked at.
"""

from __future__ import annotations

from chainrule.checks.ranks.looks import Look, alike, averaged, common, listed, meant_as_one, replicated, telling
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "replica-drift"


def judge(observed: Observed) -> Outcome:
    """The first step of each optimizer in which the ranks part, or have parted."""
    if not observed.replicas:
        return NotRun("the program is one process, or no step was seen of all ranks")
    found: dict[str, Finding] = {}
    for look in observed.replicas:
        name = look[0].optimizer
        if name not in found and not any(replica.detached for replica in look):  # that is detached-ddp's
            finding = _of_one(look)
            if finding is not None:
                found[name] = finding
    return list(found.values())


def _of_one(look: Look) -> Finding | None:
    if replicated(look):
        parted = [path for path in common(look) if not alike(replica.after[path] for replica in look)]
        return _parted(look, parted) if parted else None
    different = [path for path in telling(look) if not alike(replica.before[path] for replica in look)]
    return _different(look, different) if different and averaged(look) else None


def _parted(look: Look, paths: list[str]) -> Finding:
    first, certain = look[0], meant_as_one(look)
    how, advice = _cause(look, paths)
    return Finding(
        check=NAME,
        severity="error" if certain else "warning",
        where=paths[0],
        source=first.line,
        message=f"the ranks part in step {first.number}: {len(paths)} of {len(common(look))} parameters of "
        f"{first.optimizer} differ after it, {listed(paths)}",
        evidence=_evidence(look, paths),
        rows=_rows(look, paths[0]),
        notes=(how, advice) if certain else (how, advice, "If the ranks are meant to train apart, all is well."),
    )


def _cause(look: Look, paths: list[str]) -> tuple[str, str]:
    """(what is different, what to do)."""
    if all(alike(replica.gradients.get(path) for replica in look) for path in paths):
        if not alike(replica.settings for replica in look):
            return "The gradients are the same, the optimizer's settings are not.", "Set the same on every rank."
        return "The gradients are the same, the updates are not.", "Load the optimizer's state on every rank."
    for kind in ("clip", "unscale", "zero_grad", "backward"):
        counts = [replica.calls.get(kind, 0) for replica in look]
        if len(set(counts)) > 1:
            return f"Calls of {kind} since the last step: {', '.join(map(str, counts))}.", "Do the same on every rank."
    if look[0].wrapped and not any(replica.forwards for replica in look):
        return (
            "The module inside of DistributedDataParallel was called, not the wrapper: nothing averages.",
            "Call the wrapper.",
        )
    if look[0].averaged:
        return (
            "The gradients were averaged, and something changed them afterwards.",
            "Average last, or do the same on all ranks.",
        )
    if look[0].wrapped:
        return (
            "DistributedDataParallel did not average these gradients, or they were changed afterwards.",
            "Look for no_sync in the last backward, and for what changes a gradient on some ranks only.",
        )
    return "Their gradients differ: nothing averages them.", "Wrap the model in DistributedDataParallel."


def _different(look: Look, paths: list[str]) -> Finding:
    first = look[0]
    return Finding(
        check=NAME,
        severity="error",
        where=paths[0],
        source=first.line,
        message=f"the ranks take the same gradients to different parameters: {len(paths)} of {len(common(look))} "
        f"of {first.optimizer} differ before step {first.number}, {listed(paths)}",
        evidence=_evidence(look, paths),
        rows=_rows(look, paths[0]),
        notes=("Give every rank the same start: one seed, or a broadcast of the first rank's parameters.",),
    )


def _evidence(look: Look, paths: list[str]) -> dict[str, object]:
    return {"optimizer": look[0].optimizer, "step": look[0].number, "ranks": len(look), "parameters": paths[:50]}


def _rows(look: Look, path: str) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (
            f"rank {rank}",
            f"{replica.entries[path][0]:+.6e}",
            f"first entry of {path} after it; gradient's norm {replica.norms.get(path, 0.0):.3g}",
        )
        for rank, replica in enumerate(look[:4])
    )
