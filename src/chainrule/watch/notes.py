"""Where the parts of an observer write down what they see: the events, and the names that are given to things."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from chainrule.capture.tape_places import running_line
from chainrule.finding import Line
from chainrule.watch.names import Names
from chainrule.watch.observed import Event, Kind, Observed
from chainrule.watch.pace import Pace


class Notes:
    """What was seen so far, and how closely to look now.

    optimizers  that have begun a step, in the order of their first
    updates     number of optimizer steps so far
    close       True while the coming step is one that is looked at closely
    loss        of the last backward; None if it was not read
    """

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self.observed = Observed()
        self.names = Names(models)
        self.optimizers: list[Optimizer] = []
        self.updates = 0
        self.pace = Pace()
        self.close = self.pace.wanted(1)
        self.loss: float | None = None

    def say(self, kind: Kind, who: str = "", *, look_up: bool | None = None, **numbers: Any) -> None:
        """A call was made; its line is looked up in a step that is looked at closely, or as `look_up` says."""
        where = user_line() if (self.close if look_up is None else look_up) else None
        self.observed.events.append(Event(kind, self.updates, who, where, numbers))


def user_line() -> Line | None:
    """The line of the user's that is running."""
    line = running_line()
    return Line(line.file, line.line, line.code) if line else None
