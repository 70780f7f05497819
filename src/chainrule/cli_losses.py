"""The command `losses`: the catalogue, the page of one loss, the loss that fits a column of data."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.losses import Loss

NEWLINE = "\n"


def losses(name: str = "", /) -> int:
    """List the losses by task, or show one: formula, gradient, what breaks in its naive form, when to choose it, its plot.

    Parameters
    ----------
    name
        A loss of the list, e.g. huber.
    """
    from chainrule.losses import loss_named

    if name:
        show_page(loss_named(name))
    else:
        show_catalogue()
    return 0


def show_catalogue() -> None:
    """Name, robustness and formula of each loss, by task, and below them when to choose it."""
    from chainrule.losses import CATALOGUE

    task = ""
    for loss in CATALOGUE:
        if loss.task != task:
            print(f"{NEWLINE if task else ''}{loss.task}")
            task = loss.task
        robustness = re.split(r"[: ,]", loss.outliers)[0]
        print(f"  {loss.name:24} {robustness:10} {loss.formula}")
        for line in textwrap.wrap(loss.choose, terminal_width() - 38):
            print(" " * 38 + line)
    print("\nchainrule losses NAME shows one: gradient, plot, what breaks in its naive form, when not to use it.")


def show_page(loss: Loss) -> None:
    """What there is to know of one loss, then its plot."""
    from chainrule.losses.page import page

    print(f"{loss.name}\n")
    for line in labelled(page(loss)):
        print(line)
    show_plot(loss, {})


def show_plot(loss: Loss, settings: Mapping[str, Any]) -> None:
    """Loss and gradient of one term along a number, where the settings are numbers."""
    from chainrule.losses.curves import along
    from chainrule.report.plot import Series, plot

    numbers = {name: value for name, value in settings.items() if isinstance(value, float)}
    drawn = along(loss, numbers)
    print()
    for line in plot(
        [Series("loss", drawn.x, drawn.loss), Series("gradient", drawn.x, drawn.slope)], axis=loss.curve.axis
    ):
        print(line)


def labelled(lines: list[tuple[str, str]]) -> list[str]:
    """(label, text) as a column of labels and wrapped text."""
    column = max(len(label) for label, _ in lines) + 4
    return [
        wrapped
        for label, text in lines
        for wrapped in textwrap.wrap(
            text, terminal_width(), initial_indent=f"  {label:<{column - 2}}", subsequent_indent=" " * column
        )
    ]


def terminal_width() -> int:
    """Columns to write in: those of the terminal, from 60 to 120."""
    return min(max(shutil.get_terminal_size(fallback=(100, 24)).columns, 60), 120)
