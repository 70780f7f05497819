"""How a run begins, whatever it trains: from nothing or from a checkpoint, and only if its preflight finds no error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from chainrule.train.atomic import write_json, write_text
from chainrule.train.checkpoint import discard_after
from chainrule.train.journal import Keeper
from chainrule.train.records import Listener, Report

PREFLIGHT = "preflight.json"


class Counted(Protocol):
    """A loop's state, as far as a beginning needs it."""

    step: int


S = TypeVar("S", bound=Counted)


def first_state(
    folder: Path, checkpoint: Path | None, fresh: S, load: Callable[[Path], S], journal: Keeper, listener: Listener
) -> S:
    """The fresh state, or the checkpoint's; what a killed run wrote after it is forgotten."""
    if checkpoint is None:
        journal.forget_after(-1)
        journal.note("started")
        return fresh
    state = load(checkpoint)
    journal.forget_after(state.step)
    dropped = discard_after(folder, state.step)
    journal.note("resumed", f"step {state.step}")
    listener.say("resume", f"from step {state.step:,}{f'; {dropped} later checkpoints removed' if dropped else ''}")
    return state


def accepted(report: Report, folder: Path, listener: Listener) -> bool:
    """Keep and show a preflight's report; True if training may begin."""
    write_json(report.to_dict())(folder / PREFLIGHT)
    write_text(folder / "preflight.txt", f"{report}\n")
    listener.reported(report)
    return report.ok
