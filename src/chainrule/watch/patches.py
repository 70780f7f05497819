"""Functions of torch replaced while a loop is observed, each by one that calls it and also says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

# around(original) -> what stands in its place
Around = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def patched(owner: Any, name: str, around: Around) -> Iterator[None]:
    """`owner.name` replaced while the block runs, if the owner has it; a class inherits from nobody here."""
    original = vars(owner).get(name)
    if original is None:
        yield
        return
    setattr(owner, name, wraps(original)(around(original)))
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def all_patched(patches: list[tuple[Any, str, Around]]) -> Iterator[None]:
    """Several at once."""
    with ExitStack() as stack:
        for owner, name, around in patches:
            stack.enter_context(patched(owner, name, around))
        yield


def and_then(said: Callable[..., None]) -> Around:
    """Calls the original, then `said(result, *args, **kwargs)`."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            said(result, *args, **kwargs)
            return result

        return call

    return around


def before(said: Callable[..., None]) -> Around:
    """`said(*args, **kwargs)`, then the original."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            said(*args, **kwargs)
            return original(*args, **kwargs)

        return call

    return around
