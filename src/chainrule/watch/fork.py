"""Work done in a copy of the whole process: the cleanest copy of a model, an optimizer and all that a loop holds.

A forked child shares no memory that it writes to: whatever it trains, draws or changes, the parent never sees. On the
CPU this costs milliseconds and only the memory that is written to.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch

from chainrule.watch.unwarned import unwarned

T = TypeVar("T")
SAID = "said"


class WorkFailedError(Exception):
    """The work raised in the child; the text is what the child said of it."""


def why_not() -> str:
    """Why this process cannot be copied, as a clause; "" if it can."""
    if not hasattr(os, "fork"):
        return "this system cannot copy a process (no fork)"
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "a process that uses CUDA cannot be copied"
    return ""


def in_a_copy(work: Callable[[], T]) -> T:
    """Do the work in a forked child, on one thread and with its output thrown away; return what it returns.

    The result must be picklable. Raises WorkFailedError, with the child's last words, if the work raises.
    """
    outlet, inlet = os.pipe()
    child = fork()
    if child == 0:
        os.close(outlet)
        _do_and_exit(work, inlet)
    os.close(inlet)
    result: T = received(outlet, child)
    return result


def fork() -> int:
    """os.fork with nothing left in the buffers of stdout and stderr, which both processes would write."""
    sys.stdout.flush()
    sys.stderr.flush()
    with unwarned():  # of other threads: the child runs none of their code
        return os.fork()


def received(outlet: int, child: int, hear: Callable[[str], None] = lambda _: None) -> Any:
    """Wait for what the child sends; `hear` what it says meanwhile. WorkFailedError if it says that it failed, or dies."""
    try:
        final = _last_word(outlet, hear)
    except BaseException:  # Ctrl-C: nobody waits for the work any more
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if final is None:
        code = os.waitstatus_to_exitcode(status)
        raise WorkFailedError(f"the copy of the process ended without a word (status {code})")
    if not final[0]:
        raise WorkFailedError(final[1])
    return final[1]


def _last_word(outlet: int, hear: Callable[[str], None]) -> tuple[bool, Any] | None:
    """(whether the work is done, its result or what went wrong); None if the child ended without saying so."""
    with os.fdopen(outlet, "rb") as pipe, suppress(EOFError):
        while True:
            kind, content = pickle.load(pipe)
            if kind != SAID:
                return kind, content
            hear(content)
    return None


def speak(text: str, inlet: int) -> None:
    """In a child: say something to the parent before the work is done."""
    os.write(inlet, pickle.dumps((SAID, text)))


def send_and_exit(good: bool, result: Any, inlet: int) -> None:
    """The end of a child: hand the result to the parent and stop, with no handler of the parent's run."""
    try:
        content = pickle.dumps((good, result))
    except Exception as error:
        content = pickle.dumps((False, f"{type(error).__name__}: {error}"))
    try:
        with os.fdopen(inlet, "wb") as pipe:
            pipe.write(content)
    finally:
        os._exit(0)


def be_quiet() -> None:
    """One thread, as none of the parent's came along, and no output: the parent says it all itself."""
    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _do_and_exit(work: Callable[[], Any], inlet: int) -> None:
    good, result = False, None
    try:
        be_quiet()
        good, result = True, work()
    except BaseException as error:
        result = said_by(error)
    finally:
        send_and_exit(good, result, inlet)


def said_by(error: BaseException) -> str:
    """The error as the last line of its traceback has it."""
    return "".join(traceback.format_exception_only(error)).strip()
