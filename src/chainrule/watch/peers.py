"""The other ranks of a distributed run: their part in the steps that were looked at, and in collective calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor

from chainrule.finding import Line
from chainrule.watch.collectives import Call, Collectives, disagreement
from chainrule.watch.observed import Event, Observed, StepRecord
from chainrule.watch.prints import replica
from chainrule.watch.ranks import Ranks
from chainrule.watch.replica import Disagreement, Replica
from chainrule.watch.wrappers import Wrappers

KEPT = 4  # looks that some rank has not said yet: one that ended, or never came so far
PATIENCE, PAUSE = 3.0, 0.02  # seconds at the end of the loop that the others are waited for, between two questions


class Peers:
    """Writes into `observed` what the ranks did, as far as they have said it.

    close     whether the coming step is looked at closely
    line      the user's line that is running
    news      called when something came in that the judges should see at once
    alone     never look at the others
    """

    def __init__(
        self,
        observed: Observed,
        close: Callable[[], bool],
        line: Callable[[], Line | None],
        news: Callable[[], None],
        *,
        alone: bool,
    ) -> None:
        self.ranks = Ranks(alone=alone)
        self._observed, self._close, self._news = observed, close, news
        self._wrappers = Wrappers()
        self._collectives = Collectives(self._looking, line, self._called, self._wrappers.reduced)
        self._asked: list[str] = []

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        with self._wrappers.followed(), self._collectives.followed():
            yield

    def looked_at(
        self, record: StepRecord, parameters: Mapping[str, tuple[int, Tensor]], events: Iterable[Event]
    ) -> None:
        """A step was looked at closely: say so to the others."""
        if self.ranks.several:
            key = f"step/{record.optimizer}/{record.number}"
            self.ranks.say(key, replica(record, events, self._wrappers.hold(parameters)).to_json())
            self._asked = [*self._asked, key][-KEPT:]

    def stepped(self) -> None:
        """A step was made: hear what the others have said meanwhile."""
        self._wrappers.begin()
        if self._asked and self._hear():
            self._news()

    def finish(self) -> None:
        """The loop has ended: give the others a moment to come as far."""
        end = time.monotonic() + PATIENCE
        while self._asked and time.monotonic() < end:
            if not self._hear():
                time.sleep(PAUSE)

    def _hear(self) -> bool:
        complete = {key: said for key in self._asked if len(said := self.ranks.heard(key)) == self.ranks.world}
        self._asked = [key for key in self._asked if key not in complete]
        for said in complete.values():
            self._observed.replicas.append(tuple(Replica.from_json(said[rank]) for rank in sorted(said)))
        return bool(complete)

    def _looking(self) -> bool:
        return self._close() and self.ranks.several

    def _called(self, call: Call) -> None:
        """This rank is about to make a collective call; if another's does not fit, that is said before it may hang."""
        key = f"call/{call.count}"
        self.ranks.say(key, asdict(call))
        for rank, said in self.ranks.heard(key).items():
            if how := disagreement(call, _call(said), (self.ranks.rank, rank)):
                self._observed.disagreements.append(Disagreement(call.name, how, call.line, (self.ranks.rank, rank)))
                self._news()
                return


def _call(said: dict[str, Any]) -> Call:
    line = Line(**said["line"]) if said["line"] else None
    return Call(**{**said, "gives": tuple(said["gives"]), "takes": tuple(said["takes"]), "line": line})
