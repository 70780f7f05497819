"""The command line: strings to objects, and errors to exit codes. Adding a command is one function in `COMMANDS`.

    0 pass, done    1 fail    2 misuse: a ChainruleError's message on stderr, no traceback    3 unresolved    130 Ctrl-C

A command is a function that returns its exit code (None = 0); its docstring is its help. It imports torch inside, so
that `chainrule --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from chainrule.cli_check import check, rules, why
from chainrule.cli_explain import explain
from chainrule.cli_losses import losses
from chainrule.cli_model import export, sample
from chainrule.cli_numerical import numerical
from chainrule.cli_predict import predict
from chainrule.cli_run import run as run_script
from chainrule.cli_run import separated
from chainrule.cli_runs import compare, runs
from chainrule.cli_train import moved, plan, settings_of_file, train, unlike_all
from chainrule.cli_vectors import vectors
from chainrule.errors import ChainruleError

MISUSE = 2
INTERRUPTED = 130
COMMANDS: tuple[Callable[..., int | None], ...] = (
    train,
    plan,
    sample,
    export,
    check,
    run_script,
    predict,
    runs,
    compare,
    numerical,
    vectors,
    explain,
    losses,
    why,
    rules,
)


def make_app() -> App:
    """The application with all commands."""
    app = App(
        name="chainrule",
        help="Train neural networks and language models with every gradient seen and proved.",
        version=lambda: version("chainrule"),
        config=settings_of_file,
        suppress_keyboard_interrupt=False,  # `run` has words for it
        default_parameter=Parameter(negative_iterable="", consume_multiple=True),
        help_epilogue=(
            "Start with `chainrule train`: a language model on Python's own sources, in three minutes.  "
            "Exit codes: 0 pass, 1 fail, 2 misuse, 3 unresolved."
        ),
    )
    for place, command in enumerate(COMMANDS):
        app.command(command, name="run" if command is run_script else None, sort_key=place)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (None = the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    arguments = separated(arguments) if arguments[:1] == ["run"] else arguments
    try:
        return _code(make_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value"))
    except (CycloptsError, ChainruleError) as error:
        print(f"chainrule: {_sentence(error)}", file=sys.stderr)
        return MISUSE
    except KeyboardInterrupt as interrupt:
        print(f"\nchainrule: {interrupt}" if str(interrupt) else "\nchainrule: interrupted", file=sys.stderr)
        return INTERRUPTED


def _code(result: Any) -> int:
    return result if isinstance(result, int) else 0


def _sentence(error: Exception) -> str:
    if not isinstance(error, CycloptsError):
        return str(error)
    if isinstance(error, UnknownOptionError) and error.command_chain in (("train",), ("plan",)):
        option = (error.token.keyword or error.token.value).partition("=")[0]
        if known := moved(option):
            return f"Unknown option: {option}. Did you mean {known}?"
        if unlike_all(option):
            return f"Unknown option: {option}; chainrule {error.command_chain[0]} --help lists all"
    return " ".join(str(error).split())


def main() -> None:
    """Entry point of the `chainrule` command."""
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left: nothing is wrong, and nobody is there to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + 13
    sys.exit(code)
