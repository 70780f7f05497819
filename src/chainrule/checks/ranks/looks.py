"""What can be said of one step that all ranks have described: which tensors are alike, and whether they train one model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

from chainrule.watch.replica import Replica

# One replica for each rank, in order.
Look: TypeAlias = tuple[Replica, ...]


def common(look: Look) -> list[str]:
    """The parameters that every rank has."""
    return [path for path in look[0].before if all(path in replica.before for replica in look)]


def alike(prints: Iterable[str | None]) -> bool:
    """True if every rank has the tensor, and the same."""
    seen = set(prints)
    return len(seen) == 1 and None not in seen


def telling(look: Look) -> list[str]:
    """The common parameters that are not constant: a shard of a tensor of ones is like every other shard."""
    return [path for path in common(look) if not any(path in replica.constant for replica in look)]


def replicated(look: Look) -> bool:
    """True if the ranks began the step with one and the same model."""
    paths = telling(look)
    return bool(paths) and all(alike(replica.before[path] for replica in look) for path in paths)


def averaged(look: Look) -> bool:
    """True if the gradients are those of all ranks: the same bits on every one, and not zero."""
    paths = [path for path in telling(look) if any(replica.norms.get(path) for replica in look)]
    return bool(paths) and all(alike(replica.gradients.get(path) for replica in look) for path in paths)


def meant_as_one(look: Look) -> bool:
    """True if something in the program averages gradients over the ranks, by torch's usual means."""
    return any((replica.wrapped and not replica.hooked) or replica.averaged for replica in look)


def listed(paths: Collection[str]) -> str:
    """The first few."""
    return ", ".join(list(paths)[:5]) + (" ..." if len(paths) > 5 else "")
