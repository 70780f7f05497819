"""The command `run`: a user's own script, unmodified, with a preflight before its first update and an eye on its steps."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from chainrule.cli_check import EXIT_CODES, annotate, writable, write
from chainrule.errors import ConfigError

FAILED, INTERRUPTED = 1, 130  # as a shell has it of a process that SIGINT ended
_WITH_VALUE = frozenset({"--steps", "--seed", "--json", "--save", "--only"})


def run(
    script: str,
    /,
    *arguments: str,
    module: bool = False,
    steps: int | None = None,
    only_preflight: bool = False,
    only: list[str] | None = None,
    seed: int = 0,
    json: Path | None = None,
    save: Path | None = None,
) -> int:
    """Run your own training script, unmodified: preflight on its first step, then watched.

    All after SCRIPT is the script's. Its results are what they would be without chainrule; what chainrule has to say goes
    to stderr. Exit code: the script's own if it is not 0, 130 after Ctrl-C; else 0 pass, 1 fail, 3 unresolved; 2 misuse.

    Parameters
    ----------
    script
        The Python file, or with --module the name of a module as for python -m.
    arguments
        The script's own arguments.
    module
        SCRIPT is the name of a module.
    steps
        Stop after this many optimizer steps.
    only_preflight
        Stop before the first optimizer step is made.
    only
        Run only the check of this name; may be given more than once.
    seed
        Of the random directions and samples.
    json
        Also write the report as JSON to this file.
    save
        Also write the report to this file; its suffix says how: .html, .sarif, .txt or .json.
    """
    writable(json, save)
    if not module and not Path(script).is_file():
        raise ConfigError(f"there is no file {script!r} to run")
    from chainrule import live

    command = " ".join(("chainrule run", *(["--module"] if module else []), script, *arguments))
    limit, code, watch = 0 if only_preflight else steps, 0, None
    try:
        with live.watch(only=only or (), seed=seed, command=command, steps=limit, tell=live.say) as watch:
            code = _run(script, arguments, module)
    except (Exception, KeyboardInterrupt) as error:
        if watch is None:  # it was not the script: the watch did not begin
            raise
        traceback.print_exception(error.with_traceback(_own_frames(error.__traceback__)))
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    if code:
        live.say(f"chainrule: the script ended with exit code {code}, which is this command's too")
    if watch.ranks.rank == 0:  # of several processes that torchrun started, the first speaks for all
        live.say(watch.closing)
        annotate(watch.report)
        write(watch.report, json, save)
    return code or EXIT_CODES[watch.report.verdict]


def separated(arguments: Sequence[str]) -> list[str]:
    """The command line with `--` before SCRIPT, so that nothing after it is taken for a flag of ours."""
    place = 1
    while place < len(arguments) and arguments[place].startswith("-"):
        if arguments[place] == "--":
            return list(arguments)
        place += 2 if arguments[place] in _WITH_VALUE else 1
    return [*arguments[:place], "--", *arguments[place:]] if place < len(arguments) else list(arguments)


def _run(script: str, arguments: Sequence[str], module: bool) -> int:
    """Run it as `python SCRIPT ARGS` would; its exit code. Raises what it raises."""
    with _as_main(script, arguments, module):
        try:
            if module:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(script, run_name="__main__")
        except SystemExit as error:
            return _code(error)
    return 0


@contextmanager
def _as_main(script: str, arguments: Sequence[str], module: bool) -> Iterator[None]:
    before = sys.argv[:], sys.path[:]
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path.cwd()) if module else str(Path(script).resolve().parent)
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


def _code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return FAILED


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's own first frame on."""
    hidden = {__file__, runpy.__file__, "<frozen runpy>"}
    while frames is not None and frames.tb_frame.f_code.co_filename in hidden:
        frames = frames.tb_next
    return frames
