"""The loss of a program of which only one iteration was seen: its model is called again, the rest is replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from chainrule.autodiff.evaluate import run_node, value_of
from chainrule.capture.batches import tensors_of
from chainrule.capture.tape_live import Arguments
from chainrule.graph import Graph, Node, Ref, Value


@dataclass(frozen=True, eq=False)
class ReplayedLoss:
    """loss(model, arguments): calls `module` with the arguments, then computes the rest as the tape has it.

    graph    of the recorded iteration
    outputs  the graph's value for each tensor that the module returned, by its place
    module   what the program called
    autocast opens the autocast regions that were open around that call; what follows holds its casts itself
    """

    graph: Graph
    outputs: Mapping[str, Ref]
    module: nn.Module
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self, model: nn.Module, batch: Arguments) -> Tensor:
        """The loss for other arguments, or other parameters, of the recorded shapes."""
        with self.autocast():
            made = tensors_of(self.module(*batch.args, **batch.kwargs))
        values = self._leaves(model)
        for place, ref in self.outputs.items():
            if ref.name in self._names:
                _put(values, ref, made[place])
        for node in self._rest:
            values[node.name] = run_node(node, values)
        loss: Tensor = value_of(self.graph.output, values)
        return loss

    @property
    def fixed_shapes(self) -> bool:
        """False if the program's model returns the loss itself, so that nothing has to be replayed."""
        return bool(self._rest)

    @cached_property
    def _rest(self) -> tuple[Node, ...]:
        """The formulas between the module's output and the loss."""
        given = set(self.outputs.values())
        wanted = {self.graph.output} - given
        kept = []
        for node in reversed(self.graph.nodes):
            if any(ref.name == node.name for ref in wanted):
                kept.append(node)
                wanted |= {ref for ref in node.refs() if ref not in given}
        return tuple(reversed(kept))

    @cached_property
    def _names(self) -> frozenset[str]:
        """Names of the values that the rest begins with."""
        return frozenset({ref.name for node in self._rest for ref in node.refs()} | {self.graph.output.name})

    def _leaves(self, model: nn.Module) -> dict[str, Value]:
        now = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        return {
            name: now.get(leaf.path, leaf.value) if leaf.kind == "parameter" else leaf.value
            for name, leaf in self.graph.leaves.items()
        }


def _put(values: dict[str, Value], ref: Ref, tensor: Tensor) -> None:
    if ref.index is None:
        values[ref.name] = tensor
    else:
        items = values.get(ref.name, ())
        items += (None,) * (ref.index + 1 - len(items))
        values[ref.name] = (*items[: ref.index], tensor, *items[ref.index + 1 :])


def autocast_now() -> Callable[[], AbstractContextManager[None]]:
    """What opens the autocast regions that are open now."""
    open_now = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]

    @contextmanager
    def regions() -> Iterator[None]:
        with ExitStack() as stack:
            for kind, dtype in open_now:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    return regions
