"""The command `losses`: the catalogue, the page of one loss, the loss that fits a column of data."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli_check import EXIT_CODES
from chainrule.cli_own_loss import Function, Kind, drawn, examined, recommended
from chainrule.errors import ConfigError
from chainrule.report import show
from chainrule.setup_file import is_file_target, load_loss

if TYPE_CHECKING:
    from chainrule.losses import Loss, Recommendation
    from chainrule.losses.curves import Drawn

NEWLINE = "\n"


def losses(name: str = "", /, *, data: Path | None = None, target: str | None = None, kind: Kind | None = None) -> int:
    """List the losses, show one with its plot, find the one that fits your data, or examine one of your own.

    Exit code of an examination: 0 pass, 1 fail, 3 unresolved.

    Parameters
    ----------
    name
        A loss of the list, huber, or with settings huber(delta=2); or FILE.py:function, your own loss, called as
        function(prediction, target).
    data
        A CSV or Parquet file: which loss fits its column --target?
    target
        The column that is to be predicted.
    kind
        What the targets are; concluded from the values if it is not given.
    """
    if (data is None) != (target is None):
        raise ConfigError("--data FILE and --target COLUMN belong together: give both")
    if is_file_target(name):
        function = load_loss(name)
        report, found = examined(function, name, data=data, column=target, kind=kind)
        show(report)
        if not any(finding.check == "loss-without-gradient" for finding in report.findings):
            show_own_plot(function, found)
        return EXIT_CODES[report.verdict]
    if data is not None and target is not None:
        if name:
            raise ConfigError(
                f"--data recommends a loss for a column: leave out {name}, or name your own as FILE.py:function"
            )
        show_recommendation(target, recommended(data, target, kind))
        return 0
    from chainrule.losses import loss_called

    if name:
        show_page(*loss_called(name))
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


def show_page(loss: Loss, settings: Mapping[str, float]) -> None:
    """What there is to know of one loss, then its plot with these settings."""
    from chainrule.losses.page import page

    print(f"{loss.name}\n")
    for line in labelled(page(loss)):
        print(line)
    show_plot(loss, settings)


def show_recommendation(column: str, found: Recommendation) -> None:
    """The loss, its settings, why, what was seen, other choices; then its plot with these settings."""
    settings = ", ".join(f"{name} = {_short(value)}" for name, value in found.settings.items())
    print(f"for {column}: {found.loss.name}{f' with {settings}' if settings else ''}{NEWLINE}")
    lines = [("why" if number == 0 else "", reason) for number, reason in enumerate(found.reasons)]
    run = [("RUN.toml" if number == 0 else "", line) for number, line in enumerate(found.in_run.splitlines())]
    others = [("or" if number == 0 else "", f"{loss.name} {when}") for number, (loss, when) in enumerate(found.others)]
    for line in labelled(
        [*lines, *run, *found.seen, ("term", found.loss.formula), ("gradient", found.loss.gradient), *others]
    ):
        print(line)
    show_plot(found.loss, found.settings)


def _short(value: Any) -> str:
    """A number, or the first few of several."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    return f"({', '.join(f'{number:g}' for number in value[:8])}{', ...' if len(value) > 8 else ''})"


def show_plot(loss: Loss, settings: Mapping[str, Any]) -> None:
    """Loss and gradient of one term along a number, where the settings are numbers."""
    from chainrule.losses.curves import along

    numbers = {name: value for name, value in settings.items() if isinstance(value, float)}
    draw(along(loss, numbers), loss.curve.axis)


def show_own_plot(function: Function, kind: Kind) -> None:
    """Your own loss and its gradient along a number; a line that says why not, if the function takes no single example."""
    try:
        curve, axis = drawn(function, kind)
    except Exception as error:
        print(f"\nno plot: for a single example it raises {type(error).__name__}: {error}")
        return
    draw(curve, axis)


def draw(curve: Drawn, axis: str) -> None:
    """A loss and its gradient along one number."""
    from chainrule.report.plot import Series, plot

    print()
    for line in plot([Series("loss", curve.x, curve.loss), Series("gradient", curve.x, curve.slope)], axis=axis):
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
