"""The collective calls of a program: their arguments, shown to the other ranks before the call, for one that fits none hangs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, distributed

from chainrule.finding import Line
from chainrule.watch.patches import Around, all_patched

# name in torch.distributed -> names of its arguments in order; those that make the ranks wait for each other
COLLECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "all_reduce": ("tensor", "op", "group"),
        "broadcast": ("tensor", "src", "group"),
        "reduce": ("tensor", "dst", "op", "group"),
        "all_gather": ("tensor_list", "tensor", "group"),
        "all_gather_into_tensor": ("output_tensor", "input_tensor", "group"),
        "reduce_scatter_tensor": ("output", "input", "op", "group"),
        "all_to_all": ("output_tensor_list", "input_tensor_list", "group"),
        "all_to_all_single": ("output", "input", "output_split_sizes", "input_split_sizes", "group"),
        "barrier": ("group",),
    }
)


@dataclass(frozen=True)
class Call:
    """One collective call of one rank.

    count  of it among the program's collectives, from 1
    same   what every rank must give alike: dtype, number of entries, operation, root
    gives  number of entries for each rank, of an all_to_all; takes likewise
    """

    count: int
    name: str
    same: Mapping[str, str]
    gives: tuple[int, ...]
    takes: tuple[int, ...]
    line: Line | None


class Collectives:
    """Calls `seen(call)` before each collective of the whole world that the program makes, `reduced(tensor)` after all_reduce.

    wanted   whether the arguments are to be looked at now
    line     the user's line that is running
    """

    def __init__(
        self,
        wanted: Callable[[], bool],
        line: Callable[[], Line | None],
        seen: Callable[[Call], None],
        reduced: Callable[[Tensor], None],
    ) -> None:
        self._wanted, self._line, self._seen, self._reduced = wanted, line, seen, reduced
        self._count = 0

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        with all_patched([(distributed, name, self._around(name)) for name in COLLECTIVES]):
            yield

    def _around(self, name: str) -> Around:
        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                given = {**dict(zip(COLLECTIVES[name], args, strict=False)), **kwargs}
                if given.get("group") in (None, getattr(distributed.group, "WORLD", None)):
                    self._count += 1
                    if self._wanted():
                        self._seen(described(self._count, name, given, self._line()))
                if name == "all_reduce" and isinstance(given.get("tensor"), Tensor):
                    self._reduced(given["tensor"])
                return original(*args, **kwargs)

            return call

        return around


def described(count: int, name: str, given: Mapping[str, Any], line: Line | None) -> Call:
    """The call in numbers."""
    gives, takes = _exchanged(name, given)
    tensor = next((value for key, value in given.items() if isinstance(value, Tensor) and "output" not in key), None)
    same = {key: str(given[key]) for key in ("op", "src", "dst") if key in given}
    if tensor is not None:
        same["dtype"] = str(tensor.dtype).removeprefix("torch.")
        if not gives and name != "all_gather":  # some backends gather uneven parts
            same["entries"] = str(tensor.numel())
    return Call(count, name, same, gives, takes, line)


def _exchanged(name: str, given: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What an all_to_all gives to each rank and takes from each; nothing for other calls."""
    if name == "all_to_all":
        pair = given["input_tensor_list"], given["output_tensor_list"]
        return tuple(t.numel() for t in pair[0]), tuple(t.numel() for t in pair[1])
    if name == "all_to_all_single":
        return (
            _split(given["input"], given.get("input_split_sizes")),
            _split(given["output"], given.get("output_split_sizes")),
        )
    return (), ()


def _split(tensor: Tensor, sizes: list[int] | None) -> tuple[int, ...]:
    world = distributed.get_world_size()
    row = math.prod(tensor.shape[1:])
    if sizes:
        return tuple(int(size) * row for size in sizes)
    return (tensor.numel() // world,) * world


def disagreement(one: Call, other: Call, ranks: tuple[int, int]) -> str:
    """How two ranks' calls of the same count do not fit each other, as a clause; "" if they do."""
    first, second = ranks
    if one.name != other.name:
        return f"rank {first} calls {one.name} where rank {second} calls {other.name}"
    for key in one.same.keys() & other.same.keys():
        if one.same[key] != other.same[key]:
            return f"{one.name}: {key} {one.same[key]} on rank {first}, {other.same[key]} on rank {second}"
    for (a, giver), (b, taker) in (((first, one), (second, other)), ((second, other), (first, one))):
        if len(giver.gives) > b and len(taker.takes) > a and giver.gives[b] != taker.takes[a]:
            return (
                f"{one.name}: rank {a} gives {giver.gives[b]} entries to rank {b}, which takes {taker.takes[a]} from it"
            )
    return ""
