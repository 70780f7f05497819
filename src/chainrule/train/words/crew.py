"""Threads that take jobs in order from one counter and work on the same weights without locks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

Tool = TypeVar("Tool")
Result = TypeVar("Result")


class Crew(Generic[Tool, Result]):
    """Runs work(job, tool) for the jobs first ... end - 1, one thread for each tool; one thread keeps their order."""

    def __init__(self, work: Callable[[int, Tool], Result], tools: Sequence[Tool], first: int, end: int) -> None:
        self._work, self._tools = work, tools
        self._next, self._end = first, end
        self._lock = threading.Lock()
        self._done: SimpleQueue[Result | BaseException | None] = SimpleQueue()

    def stop(self, multiple: int) -> None:
        """Hand out no jobs beyond the next multiple of `multiple`."""
        with self._lock:
            self._end = min(self._end, -(-self._next // multiple) * multiple)

    def results(self) -> Iterator[Result]:
        """Each job's result as soon as it is there. Raises what a thread raised, after all have ended."""
        threads = [threading.Thread(target=self._run, args=(tool,), daemon=True) for tool in self._tools]
        for thread in threads:
            thread.start()
        running, error = len(threads), None
        try:
            while running:
                result = self._done.get()
                if result is None:
                    running -= 1
                elif isinstance(result, BaseException):
                    error = result
                else:
                    yield result
        finally:
            self._end = 0  # if the reader leaves early, no thread takes another job
            for thread in threads:
                thread.join()
        if error is not None:
            raise error

    def _run(self, tool: Tool) -> None:
        try:
            while (job := self._take()) is not None:
                self._done.put(self._work(job, tool))
        except BaseException as error:
            self._end = 0
            self._done.put(error)
        finally:
            self._done.put(None)

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._end:
                return None
            self._next += 1
            return self._next - 1
