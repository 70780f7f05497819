"""A planted fault and its repaired twin, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chainrule import Setup

# A training loop to be run under `chainrule.watch`; it takes nothing and makes its own model.
Loop = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One fault that real users met.

    id      row of the catalogue, e.g. "TC12"; a letter is added where a row is rebuilt in several ways
    source  where it was reported, e.g. "StackOverflow 60335387"
    fault   what is wrong, in a few words
    check   the check that must find it
    build   build(broken) -> the broken set-up, or its repaired twin; a Loop where the fault lies in the loop's end or epochs
    where   a piece of the place or the source line that the finding must name
    when    "P": before the first update; "k": within the first steps
    """

    id: str
    source: str
    fault: str
    check: str
    build: Callable[[bool], Setup | Loop]
    where: str = ""
    when: Literal["P", "k"] = "P"
