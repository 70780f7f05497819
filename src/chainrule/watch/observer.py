"""Sees what a training loop calls and writes it down; changes nothing that the loop computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.watch.calls import Calls
from chainrule.watch.loaders import Loaders
from chainrule.watch.notes import Notes, user_line
from chainrule.watch.observed import Observed
from chainrule.watch.patches import all_patched
from chainrule.watch.peers import Peers
from chainrule.watch.steps import Steps


class Observer:
    """Fills an `Observed` while its `watching` block runs.

    models      whose parameters get their paths as names; found by what the optimizer holds if there are none
    on_step     called after each step that was looked at closely, with what was observed so far
    on_update   called after every step, with the number of steps so far
    on_backward called with each loss that is about to be differentiated; True says that it has been done
    before_step called with each optimizer that is about to make a step, after_step when it has made it
    on_peers    called when other ranks of a distributed run have said something new; None: they are not looked at
    """

    def __init__(
        self,
        models: Iterable[nn.Module] = (),
        *,
        on_step: Callable[[Observed], None] = lambda _: None,
        on_update: Callable[[int], None] = lambda _: None,
        on_backward: Callable[[Tensor], bool] = lambda _: False,
        before_step: Callable[[Optimizer], None] = lambda _: None,
        after_step: Callable[[Optimizer], None] = lambda _: None,
        on_peers: Callable[[Observed], None] | None = None,
    ) -> None:
        notes = Notes(models)
        self.observed = notes.observed
        self.peers = Peers(
            self.observed,
            close=lambda: notes.close,
            line=user_line,
            news=lambda: on_peers(self.observed) if on_peers else None,
            alone=on_peers is None,
        )
        self._calls = Calls(notes, on_backward)
        self._loaders = Loaders(notes.names, notes.say)
        self._steps = Steps(
            notes,
            self.peers,
            before=before_step,
            after=after_step,
            looked=lambda: on_step(self.observed),
            counted=on_update,
        )

    @property
    def batches(self) -> tuple[Any, ...]:
        """The batch that each DataLoader gave last."""
        return self._loaders.last

    @contextmanager
    def watching(self) -> Iterator[Observed]:
        """While the block runs, what the loop calls is written down; afterwards torch is as it was."""
        with (
            all_patched(self._calls.patches()),
            self._steps.followed(),
            self._loaders.followed(),
            self.peers.followed(),
        ):
            yield self.observed
