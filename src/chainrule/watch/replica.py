"""What the ranks of a distributed run say of themselves: one rank's part in a step, and calls in which two do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chainrule.finding import Line


@dataclass(frozen=True)
class Replica:
    """One rank in one step of one optimizer.

    before, gradients, after   path -> print of the tensor: equal tensors, and only these, have equal ones
    constant   paths of which all entries were equal before the step: such a tensor is the same in every shard of a model
    norms      path -> norm of its gradient
    entries    path -> a few entries after the step
    settings   of the optimizer's groups, as text
    calls      kind -> how often it was called since the last step
    batches    fingerprints of the batches since the last step
    detached   paths whose gradient is no longer the one that DistributedDataParallel averages
    wrapped    True if a DistributedDataParallel holds the parameters
    hooked     True if it communicates by a hook of the user's
    forwards   how often it was called since the last step; None if that is not known
    averaged   paths whose gradient was given to all_reduce
    line       where the step was made
    """

    optimizer: str
    number: int
    before: Mapping[str, str]
    gradients: Mapping[str, str]
    after: Mapping[str, str]
    constant: tuple[str, ...]
    norms: Mapping[str, float]
    entries: Mapping[str, tuple[float, ...]]
    settings: str
    calls: Mapping[str, int]
    batches: tuple[str, ...]
    detached: tuple[str, ...]
    wrapped: bool
    hooked: bool
    forwards: int | None
    averaged: tuple[str, ...]
    line: Line | None

    def to_json(self) -> dict[str, Any]:
        """For the other ranks."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Replica:
        """What another rank has said."""
        line = Line(**said["line"]) if said["line"] else None
        listed = {name: tuple(said[name]) for name in ("constant", "batches", "detached", "averaged")}
        return cls(**{**said, **listed, "line": line})


@dataclass(frozen=True)
class Disagreement:
    """Collective calls of two ranks that do not fit each other.

    name   of this rank's call
    how    as a clause: "all_reduce: entries 4 on rank 0, 6 on rank 1"
    line   where this rank calls it
    ranks  this one and the other
    """

    name: str
    how: str
    line: Line | None
    ranks: tuple[int, int]
