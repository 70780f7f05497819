"""What training shows: facts, a moving bar, validation losses, results; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from chainrule.train.records import Evaluation, Report, StepRecord, plural
from chainrule.train.results import Outcome, Results

LABEL = 12
BINARY = "vectors.bin"
LEFT = (
    "config.toml",
    "metrics.sqlite",
    "checkpoints",
    "preflight.txt",
    "report.txt",
    "report.json",
    BINARY,
    "vectors.txt",
)
PLAIN_SECONDS = 10.0
SMOOTH = 20
STOPPING = "stopping after this step; Ctrl-C again stops at once, at the last checkpoint"


class Pace:
    """Terms (tokens, rows) per second from the last steps, time left from all of them, by the clock: pauses count.

    A measurement falls into some stretches of steps and not into others; the mean of the whole session does not jump.
    """

    def __init__(self, steps: int, term: str = "term", now: Callable[[], float] = time.perf_counter) -> None:
        self._steps, self._term, self._now = steps, term, now
        self._start, self._done = now(), 0
        self._times = deque([self._start], maxlen=SMOOTH + 1)
        self._terms: deque[int] = deque(maxlen=SMOOTH)

    def step(self, record: StepRecord) -> str:
        """Hear of a step; say its figures in words."""
        self._times.append(self._now())
        self._terms.append(record.terms)
        seconds = self._times[-1] - self._times[0]
        self._done += 1
        left = (self._steps - record.step) * (self._times[-1] - self._start) / self._done
        norm = "" if record.gradient_norm is None else f"|g| {record.gradient_norm:.3g}  "
        return (
            f"loss {record.loss:.4f}  {_short(sum(self._terms) / seconds)} {self._term}s/s  lr {record.learning_rate:.2e}  "
            f"{norm}{clock(left)} left"
        )


def clock(seconds: float) -> str:
    """62.0 as 1:02; hours only if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(number: float) -> str:
    return f"{number / 1e3:.1f}k" if number >= 1000 else f"{number:.0f}"


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey; line ends and tabs stay."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def verdict_line(report: Report) -> str:
    """One line on a report."""
    content = report.to_dict()
    findings = plural(len(content.get("findings", ())), "finding")
    return f"{content['verdict'].upper()}, {findings}; the whole report is in preflight.txt of the run"


def stage_lines(report: Report) -> Iterator[str]:
    """What each stage of the preflight looked at; those that were not run are left out."""
    for stage in report.to_dict().get("stages", ()):
        if stage["verdict"]:
            yield f"{stage['verdict']}  {stage['name']}: {stage['summary']}"


def findings_of(report: Report) -> Iterator[tuple[str, str]]:
    """(severity, what was found) of what does not stop the run."""
    for finding in report.to_dict().get("findings", ()):
        yield finding["severity"], f"{finding['check']}, {finding['where']}: {finding['message']}"


def validation_line(evaluation: Evaluation) -> str:
    """One line on a validation loss."""
    return f"{evaluation.loss:.4f}{to_beat(evaluation)}{'  best so far' if evaluation.best else ''}"


def to_beat(evaluation: Evaluation) -> str:
    """The baseline beside it, if it is known."""
    return "" if evaluation.to_beat is None else f"  {evaluation.to_beat[0]} {evaluation.to_beat[1]:.4f}"


class Plain:
    """Lines for a file, a pipe or a log; a line of progress every few seconds."""

    def __init__(self) -> None:
        self._pace = Pace(0)
        self._steps = 0
        self._spoken = 0.0

    def say(self, label: str, text: str) -> None:
        """Print one fact."""
        print(f"{label:<{LABEL}}{printable(text)}", flush=True)

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Print what begins."""
        self.say("", text)
        yield

    def reported(self, report: Report) -> None:
        """Print the verdict, and the whole report if it is not a pass."""
        self.say("preflight", verdict_line(report))
        if not report.ok:
            print(report, flush=True)
            return
        for line in stage_lines(report):
            self.say("", line)
        for severity, text in findings_of(report):
            self.say(severity, text)

    def begin(self, step: int, steps: int, term: str) -> None:
        """Say where training starts."""
        self._pace, self._steps, self._spoken = Pace(steps, term), steps, time.perf_counter()
        self.say(f"{step}/{steps}", "training")

    def step(self, record: StepRecord) -> None:
        """Print the step, if it is time to, or the last one."""
        text = self._pace.step(record)
        if time.perf_counter() - self._spoken >= PLAIN_SECONDS or record.step == self._steps:
            self.say(f"{record.step}/{self._steps}", text)
            self._spoken = time.perf_counter()

    def evaluated(self, evaluation: Evaluation) -> None:
        """Print a validation loss."""
        self.say(f"{evaluation.step}/{self._steps}", f"validation {validation_line(evaluation)}")

    def stopping(self) -> None:
        """Say what Ctrl-C does."""
        self.say("", STOPPING)

    def end(self) -> None:
        """Nothing is open."""

    def finished(self, results: Results) -> None:
        """Print the table, the sample and where everything is."""
        print()
        for label, text in [*results.lines(), *where(Path(results.folder), results.outcome)]:
            self.say(label, text)
        if results.continuation:
            print("\n" + printable(results.prompt + results.continuation))


class Terminal:
    """A terminal: a bar that moves, with the facts above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._pace = Pace(0)

    def say(self, label: str, text: str | Text) -> None:
        """Print one fact; long ones go on below themselves."""
        row = Table.grid(padding=0)
        row.add_column(width=LABEL, style="cyan", no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(label, text if isinstance(text, Text) else Text(printable(text)))
        self._console.print(row)

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Show a spinner while the work goes on."""
        return self._console.status(Text(text, style="dim"))

    def reported(self, report: Report) -> None:
        """Print the verdict, and the whole report if it is not a pass."""
        self.say("preflight", Text(verdict_line(report), style="green" if report.ok else "bold red"))
        if not report.ok:
            self._console.print(Text(str(report)))
            return
        for line in stage_lines(report):
            self.say("", Text(line, style="dim"))
        for severity, text in findings_of(report):
            self.say(severity, Text(text, style="yellow"))

    def begin(self, step: int, steps: int, term: str) -> None:
        """Show the bar."""
        self._pace = Pace(steps, term)
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            refresh_per_second=4,
            expand=True,
        )
        self._console.print()
        self._bar.start()
        self._task = self._bar.add_task("", total=steps, completed=step, figures="")

    def step(self, record: StepRecord) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=record.step, figures=self._pace.step(record))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Print a validation loss above the bar."""
        beaten = evaluation.to_beat is not None and evaluation.loss < evaluation.to_beat[1]
        text = Text("validation ", style="dim")
        text.append(f"{evaluation.loss:.4f}", style="bold not dim green" if beaten else "bold not dim")
        text.append(to_beat(evaluation))
        self.say(f"step {evaluation.step}", text.append("  best so far" if evaluation.best else "", style="not dim"))

    def stopping(self) -> None:
        """Say what Ctrl-C does."""
        self.say("", Text(STOPPING, style="yellow"))

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()

    def finished(self, results: Results) -> None:
        """Print the table, the sample and where everything is."""
        self._console.print()
        for label, text in results.lines():
            better = label == "to beat" and results.beats_baseline
            self.say(label, Text(text, style="green" if better else "bold" if label == "validation" else ""))
        if results.continuation:
            sample = Text(printable(results.prompt), style="dim").append(
                printable(results.continuation), style="not dim"
            )
            self._console.print(Padding(sample, (1, 2)))
        for label, text in where(Path(results.folder), results.outcome):
            self.say(label, text)


def where(folder: Path, outcome: Outcome) -> list[tuple[str, str]]:
    """Lines that say where the run is and how it goes on."""
    lines = [("run", f"{folder}: {', '.join(name for name in LEFT if (folder / name).exists())}")]
    if (folder / BINARY).exists():
        lines.append(("ask", f"chainrule vectors {folder} similar WORD"))
    if outcome == "interrupted":
        lines.append(("go on", f"chainrule train --resume {folder}"))
    return lines


def make_listener() -> Plain | Terminal:
    """A bar for a terminal; plain lines for a file, a pipe, a log, or a terminal that cannot move its cursor."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a sample may hold letters that the terminal has not
    console = Console(highlight=False)
    return Terminal(console) if console.is_terminal and not console.is_dumb_terminal else Plain()
