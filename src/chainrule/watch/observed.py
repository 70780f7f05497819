"""What a training loop was seen to do: its events in order, and a full record of the steps that were looked at closely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self, TypeVar

from torch import Tensor

from chainrule.finding import Line
from chainrule.watch.replica import Disagreement, Replica

T = TypeVar("T")
Kind = Literal[
    "epoch", "batch", "backward", "zero_grad", "scale", "unscale", "clip", "step", "schedule", "save", "load"
]


class Event(NamedTuple):
    """One call that the loop made; a tuple, because a loop makes some four in each step and a tuple is made fastest.

    kind     what was called; the numbers that come with it:
             epoch      a DataLoader was begun: length, batch_size, workers, drop_last, order (fingerprint of the first
                        batches of the epoch, None until known), shuffled (False for a sequential sampler)
             batch      a DataLoader gave a batch: fingerprint, size
             backward   loss, finite, held (norm of the gradients held before it, None if not looked at), graph (True for
                        create_graph), scaled (True under a GradScaler), stands (True if no parameter has moved since
                        the first one; None once an optimizer has made a step)
             zero_grad  cleared (norm of the gradients that it cleared, None if not looked at)
             scale      a GradScaler scaled a loss: scale
             unscale    a GradScaler unscaled the gradients of an optimizer
             clip       how ("norm" | "value"), max, norm (before clipping), after (norm after it, None if not looked at)
             step       rates (learning rate of each group), norm (of the gradient, None if not looked at), empty (True if
                        no parameter held a gradient), skipped (True if a GradScaler skipped it)
             schedule   rates afterwards, scheduler (class name)
             save/load  what ("model" | "optimizer" | "file"), keys
    update   number of optimizer steps that were finished before it
    who      name of the optimizer, loader, model or scaler: its class, with a number if there are several: "Adam", "SGD[1]"
    line     the user's line that made the call; None where it was not looked up
    numbers  plain numbers, strings and lists
    """

    kind: Kind
    update: int
    who: str = ""
    line: Line | None = None
    numbers: Mapping[str, Any] = MappingProxyType({})


class Kept:
    """A thing at which several judges look, each of them several times."""

    def once(self, compute: Callable[[Self], T]) -> T:
        """compute(self), computed when it is first asked for and kept as long as the thing."""
        known = self.__dict__.setdefault("_known", {})
        if compute not in known:
            known[compute] = compute(self)
        result: T = known[compute]
        return result


@dataclass(frozen=True, eq=False)
class StepRecord(Kept):
    """One optimizer step in full: everything that is needed to compute it again by its formula.

    number       of this step among those of its optimizer, from 1
    optimizer    its name, as in `Event.who`
    rule         its class
    settings     param_groups before the step, without the parameters
    group        path of a parameter -> number of its group
    before/after path -> value before and after the step (copies)
    gradients    path -> gradient that the step used (copy); None if it had none
    state_before/state_after   path -> the optimizer's state for it (copies)
    line         the user's line that called step
    loss         of the last backward before it; None if there was none
    """

    number: int
    optimizer: str
    rule: type
    settings: tuple[Mapping[str, Any], ...]
    group: Mapping[str, int]
    before: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]
    after: Mapping[str, Tensor]
    state_before: Mapping[str, Mapping[str, Any]]
    state_after: Mapping[str, Mapping[str, Any]]
    line: Line | None = None
    loss: float | None = None


@dataclass
class Observed:
    """All that was seen so far; it grows while the loop runs.

    events    in order
    steps     the optimizer steps that were looked at closely: the first four, then about numbers 8, 16, 32 ...; see `pace`
    finished  True once the loop has ended by itself, so that what is missing at the end is missing for good
    replicas  steps of which every rank of a distributed run has said what it did: one for each rank, in order
    disagreements  collective calls in which ranks do not fit each other
    rehearsal True if the loop is a short rehearsal on copies, with batches repeated
    """

    events: list[Event] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    replicas: list[tuple[Replica, ...]] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)
    finished: bool = False
    rehearsal: bool = False

    def of(self, *kinds: Kind) -> Iterator[Event]:
        """The events of some kinds, in order."""
        return (event for event in self.events if event.kind in kinds)

    @property
    def updates(self) -> int:
        """Number of optimizer steps taken, skipped ones included."""
        return sum(event.kind == "step" for event in self.events)

    @property
    def losses(self) -> list[float]:
        """The value of each backward's loss."""
        return [event.numbers["loss"] for event in self.of("backward") if event.numbers.get("loss") is not None]
