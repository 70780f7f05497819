"""The tape: loss(model, batch) recorded from the user's own eager run, with the adjoints of the user's own backward.

It is the second capture, for models that `torch.export` refuses (a branch on a tensor's value), and the eyes of the
check of the backward: what is recorded was really executed, and what autograd really delivered is recorded with it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.export import Loss, LossModule
from chainrule.capture.preserve import preserved
from chainrule.capture.provenance import line_of
from chainrule.capture.recorder import Recorder
from chainrule.capture.running import ancestors
from chainrule.capture.tape_adjoints import Adjoints
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_calls import Calls
from chainrule.capture.tape_functions import Application, functions_recorded
from chainrule.capture.tape_inputs import Inputs, StandIns, inputs_of
from chainrule.capture.tape_memory import Memory
from chainrule.capture.tape_places import Places
from chainrule.capture.tape_state import State
from chainrule.errors import CaptureError, ChainruleError
from chainrule.graph import Graph, Ref, Value
from chainrule.setups import uncompiled


@dataclass(frozen=True, eq=False)
class Tape:
    """One recorded training step of the user's, up to the gradients.

    graph         what forward did, as nodes like export's, in the order in which they ran; the forwards of custom
                  autograd.Functions inlined
    values        what each leaf and node held, by name
    adjoints      dL/dvalue that the user's autograd produced, for every value whose tensor took part in it; zero where
                  the backward brought nothing
    applications  the custom autograd.Functions, in order
    loss          the loss
    """

    graph: Graph
    values: Mapping[str, Value]
    adjoints: Mapping[Ref, Tensor]
    applications: tuple[Application, ...]
    loss: Tensor


class Session(nn.Module):
    """What `functional_call` runs: forward and backward, while the model holds the run's copies."""

    def __init__(self, root: LossModule, step: Callable[..., None]) -> None:
        super().__init__()
        self.root, self.step = root, step

    def forward(self, *tensors: Tensor) -> None:
        """Run the step."""
        self.step(*tensors)


def record(model: nn.Module, loss: Loss, batch: Any, *, dtype: torch.dtype | None = None) -> Tape:
    """Run loss(model, batch) and its backward eagerly, and record both.

    dtype  None for the user's own dtypes; torch.float64 for the same run in true float64: parameters, buffers, batch,
           and every cast inside model, loss and custom backwards

    Model, loss, batch and all generators are afterwards as they were. Raises SetupError where the loss is no scalar or
    depends on no parameter, CaptureError where something cannot be followed, or, with a dtype, where the user's code
    refuses that dtype. Other errors are the user's own and pass through.
    """
    return _run(model, loss, batch, dtype, backward=True)


def capture_by_tape(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph of loss(model, batch) as this batch takes it: what the run did is what the graph holds."""
    return _run(model, loss, batch, None, backward=False).graph


def _run(model: nn.Module, loss: Loss, batch: Any, dtype: torch.dtype | None, *, backward: bool) -> Tape:
    root = LossModule(uncompiled(model), loss, batch)
    book, adjoints, stand_ins = Book(Places(root)), Adjoints(), StandIns(dtype)
    memory = Memory(book, adjoints.watch)
    state = State(book, memory, adjoints)
    recorder = Recorder(state, stand_ins)
    tapes: list[Tape] = []

    def step(*tensors: Tensor) -> None:
        with book.places.followed(), functions_recorded(recorder) as applications, recorder.calls.on():
            value = root(*tensors)
        outputs = {"": state.use(value), **mutated(root, inputs, memory)}
        if backward:
            with _widened(stand_ins):
                adjoints.backward(value, inputs.parameters)
        tapes.append(tape(book, adjoints, tuple(applications), outputs, value))

    with preserved(model, loss, batch), eager(dtype):
        with adjoints.paused():
            inputs = inputs_of(root, stand_ins, book, memory)
        for ref in inputs.parameters:
            adjoints.leave_out(ref)
        copies = {f"root.{name}": tensor for name, tensor in inputs.state.items()}
        torch.func.functional_call(Session(root, step), copies, tuple(inputs.tensors))
    return tapes[0]


def mutated(root: LossModule, inputs: Inputs, memory: Memory) -> dict[str, Ref]:
    """New values of the buffers that the run changed, by path."""
    now = {
        name.removeprefix("model."): (memory.ref(tensor), inputs.buffers.get(name))
        for name, tensor in root.named_buffers(remove_duplicate=False)
    }
    return {path: ref for path, (ref, before) in now.items() if ref != before}


def tape(
    book: Book, adjoints: Adjoints, applications: tuple[Application, ...], outputs: dict[str, Ref], loss: Tensor
) -> Tape:
    """What the book holds of a finished run, without the nodes on which nothing depends."""
    ends = [ref for application in applications for ref in (*application.inputs, *application.outputs)]
    nodes = ancestors(book.nodes, [*outputs.values(), *adjoints.recorded, *ends])
    used = {ref.name for node in nodes for ref in node.refs()} | {ref.name for ref in [*outputs.values(), *ends]}
    leaves = book.kept_leaves(used)
    names = leaves.keys() | {node.name for node in nodes}
    mutated = dict(outputs)
    graph = Graph(leaves, nodes, mutated.pop(""), "tape", tuple(dict.fromkeys(book.notes)), mutated)
    values = {name: value for name, value in book.values.items() if name in names}
    recorded = {ref: adjoint for ref, adjoint in adjoints.recorded.items() if ref.name in names}
    # A path that the user's backward cuts leaves no trace but this: a zero, which costs no memory.
    for ref in adjoints.unreached():
        if ref.name in names:
            value = values[ref.name] if ref.index is None else values[ref.name][ref.index]
            recorded[ref] = torch.zeros((), dtype=value.dtype, device=value.device).expand(value.shape)
    return Tape(graph, values, recorded, applications, loss.detach())


@contextmanager
def eager(dtype: torch.dtype | None) -> Iterator[None]:
    """Plain eager PyTorch with autograd on; in another dtype, an error of the user's code names the line."""
    default = torch.get_default_dtype()
    with warnings.catch_warnings(), torch.enable_grad(), _nothing_compiled():
        warnings.simplefilter("ignore")  # they are the user's; the user's own run shows them
        torch.set_default_dtype(dtype or default)
        try:
            yield
        except ChainruleError:
            raise
        except Exception as error:
            if dtype is None:
                raise
            name, line = str(dtype).removeprefix("torch."), line_of(error)
            raise CaptureError(
                f"{f'{line}: {line.code}' if line else 'loss(model, batch)'}\n  cannot run in {name}: "
                f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            ) from error
        finally:
            torch.set_default_dtype(default)


def _nothing_compiled() -> AbstractContextManager[Any]:
    """What the user compiled with torch.compile runs as the eager code that it was made of."""
    # Only where something may have been compiled: to ask dynamo imports it, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _widened(stand_ins: StandIns) -> AbstractContextManager[Any]:
    """While a backward runs in another dtype: casts in the user's own backwards are widened, as those of forward were."""
    if stand_ins.dtype is None:
        return nullcontext()

    def handle(op: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = stand_ins.adapted(op, args, kwargs)
        with torch._C._DisableAutocast():
            return op(*args, **kwargs)

    return Calls(handle).on()
