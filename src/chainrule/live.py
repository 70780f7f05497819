"""`watch`: preflight on the first step of a running loop, then an eye on its steps; the loop computes what it would alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from chainrule.report import Report
from chainrule.watch.children import Children, leave
from chainrule.watch.observed import Observed
from chainrule.watch.observer import Observer
from chainrule.watch.scout import Scout
from chainrule.watched import Watch


class StopProgramError(BaseException):
    """Raised inside the user's loop to end it where the user asked for so many steps only."""


def say(message: str) -> None:
    """Print to stderr: stdout is the program's own."""
    print(message, file=sys.stderr, flush=True)


@dataclass
class Child:
    """The target of a process that the watched program starts; what is found in it is left in a folder for the parent.

    settings   of the parent's watch
    inherited  watches a block in a process that is a fork, and so has all that the parent had; None where it was pickled
    """

    target: Callable[..., Any]
    folder: str
    settings: dict[str, Any]
    inherited: Callable[[], AbstractContextManager[Watch]] | None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "inherited": None}

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the target."""
        with (self.inherited or partial(watch, **self.settings))() as seen:
            seen.keep = lambda: leave(self.folder, seen.ranks.rank, seen.report)
            self.target(*args, **kwargs)


@contextmanager
def watch(
    *things: Any,
    only: Collection[str] = (),
    seed: int = 0,
    command: str = "",
    steps: int | None = None,
    tell: Callable[[str], None] = say,
) -> Iterator[Watch]:
    """Watch the training loop in the block: preflight before its first update, then an eye on its steps.

        with cr.watch(model, optimizer) as watch:
            for batch in loader: ...
        print(watch.report)

    things   models and optimizers whose names matter; what the loop trains is found in any case
    only     names of checks; all of them if empty
    steps    end the block's loop after so many optimizer steps
    tell     called with each text as soon as there is something to say; prints to stderr

    The preflight runs in a copy of the process, so that model, optimizer, random state and loader of the loop are as they
    would be without it. Raises ConfigError for a check that does not exist.
    """
    seen = Watch(only, seed, command, tell)

    def stepped(observed: Observed) -> None:
        seen.stepped(observed)
        scout.updated()

    def updated(number: int) -> None:
        if steps is not None and number >= steps:
            raise StopProgramError

    def after_preflight(report: Report) -> None:
        seen.preflight_done(report)
        updated(0)

    @contextmanager
    def block() -> Iterator[Watch]:
        """The loop, up to where it ends in whatever way."""
        try:
            yield seen
            observer.observed.finished = True
        except StopProgramError:
            pass
        except BaseException as error:
            scout.ended(error)
            raise
        finally:
            scout.ended()
            observer.peers.finish()
            seen.stepped(observer.observed)
            seen.keep()

    scout = Scout(
        seen.examined,
        tell,
        after_preflight,
        seen.preflight_refused,
        lambda: seen.ranks.several and seen.ranks.rank > 0,
        lambda: observer.batches,
    )
    observer = Observer(
        [thing for thing in things if isinstance(thing, nn.Module)],
        on_step=stepped,
        on_update=updated,
        on_backward=scout.loss_reached,
        before_step=scout.step_reached,
        after_step=scout.step_done,
        on_peers=seen.heard,
    )
    seen.ranks = observer.peers.ranks
    settings = {"only": tuple(only), "seed": seed, "command": command, "steps": steps}
    children = Children(lambda target, folder: Child(target, folder, settings, block))
    try:
        with scout.armed(), observer.watching(), children.followed(), block():
            yield seen
    finally:
        seen.children_done(children.left())
