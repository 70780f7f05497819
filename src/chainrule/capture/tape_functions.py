"""Custom `autograd.Function`s: each application is written down, and its forward inlined as nodes.

What is patched is the step below `Function.apply`, which an `apply` that was bound earlier (`op = MyFunction.apply`) takes
too. The user's own forward and backward run unchanged.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function, _SingleLevelFunction
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from chainrule.capture.recorder import Recorder
from chainrule.capture.running import ancestors, resolve, run
from chainrule.capture.tape_calls import tensors_in
from chainrule.capture.tape_places import running_line
from chainrule.graph import Node, Ref, Source

aten = torch.ops.aten
Apply = Callable[..., Any]
_OPAQUE = (
    "{where}: the forward of {name} does something that torch's dispatcher does not show (NumPy, a compiled kernel). "
    "The graph ends there; its backward can be verified by differences alone."
)


@dataclass(frozen=True, eq=False)
class Application:
    """One call of a custom autograd.Function.

    name              qualified name of its class
    inputs, outputs   the tensors among its arguments (those that autograd sees: not inside lists) and results
    nodes             names of the nodes that its forward became; those outside it see only the outputs
    gradients         what its backward returned for each input, once the backward has run
    opaque            True if its forward could not be recorded: the outputs are constants of the graph
    """

    name: str
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    nodes: tuple[str, ...] = ()
    source: Source | None = None
    stack: tuple[tuple[str, str], ...] = ()
    opaque: bool = False
    gradients: Mapping[Ref, Tensor] = field(default_factory=dict)


@contextmanager
def functions_recorded(recorder: Recorder) -> Iterator[list[Application]]:
    """While the block runs, applications of custom Functions are recorded in the list."""
    applications: list[Application] = []

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        plain = super(_SingleLevelFunction, cls).apply  # type: ignore[misc]
        if not recorder.calls.running:
            return plain(*args, **kwargs)
        if cls is CheckpointFunction:
            return _checkpointed(*args)
        args = tuple(recorder.stand_ins.of(arg) if isinstance(arg, Tensor) else arg for arg in args)
        if cls is BackwardHookFunction:
            return _unseen(recorder, plain, args)
        return _recorded(recorder, applications, cls, plain, args, kwargs)

    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        yield applications
    finally:
        del _SingleLevelFunction.apply  # type: ignore[attr-defined]


def _recorded(
    recorder: Recorder, applications: list[Application], cls: type[Function], plain: Apply, args: Any, kwargs: Any
) -> Any:
    with recorder.calls.off():
        inputs = tuple(recorder.state.use(arg) for arg in args if isinstance(arg, Tensor))
    start = len(recorder.state.book.nodes)
    with recorder.state.inlining(cls.__name__):
        output = plain(*args, **kwargs)
    with recorder.calls.off():
        made = list(tensors_in(output))
        inner = recorder.state.book.nodes[start:]
        opaque = not _is_inlined(recorder, inner, made, inputs)
        if opaque:
            where = running_line()
            recorder.state.book.notes.append(_OPAQUE.format(where=where, name=cls.__qualname__))
        outputs = tuple(_output(recorder, tensor, opaque=opaque, name=cls.__name__) for tensor in made)
        gradients: dict[Ref, Tensor] = {}
        _listen(recorder, made, inputs, gradients)
        names = () if opaque else tuple(node.name for node in inner)
        place = running_line(), recorder.state.book.places.stack
        applications.append(Application(cls.__qualname__, inputs, outputs, names, *place, opaque, gradients))
    return output


def _is_inlined(recorder: Recorder, nodes: list[Node], outputs: list[Tensor], inputs: tuple[Ref, ...]) -> bool:
    """True if the nodes compute the outputs, from the inputs where autograd says so: they are run again to find out."""
    refs = []
    for tensor in outputs:
        held = recorder.state.memory.find(tensor)
        if held is None:
            return False
        recorder.state.memory.renew(tensor)
        with recorder.state.adjoints.paused():
            refs.append(recorder.state.memory.ref(tensor))
    values: ChainMap[str, Any] = ChainMap({}, recorder.state.book.values)
    with torch.no_grad():
        for node in ancestors(nodes, refs):
            values[node.name] = run(node, values)
    for tensor, ref in zip(outputs, refs, strict=True):
        above = {ref, *(other for node in ancestors(nodes, [ref]) for other in node.refs())}
        if tensor.requires_grad and inputs and not above & set(inputs):
            return False
        if not _close(resolve(ref, values), tensor.detach()):
            return False
    return True


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal within what a kernel that is not deterministic may differ by."""
    if one.shape != other.shape or not other.is_floating_point():
        return torch.equal(one, other)
    limit = min(1e3 * torch.finfo(other.dtype).eps, 0.1)
    return torch.allclose(
        one,
        other,
        rtol=limit,
        atol=limit * float(other.abs().nan_to_num(0, 0, 0).max()) if other.numel() else 0,
        equal_nan=True,
    )


def _output(recorder: Recorder, tensor: Tensor, *, opaque: bool, name: str) -> Ref:
    """The value of an output; from here on autograd knows its place."""
    book, memory = recorder.state.book, recorder.state.memory
    if opaque:
        return memory.replace(
            tensor, book.leaf("constant", tensor.detach().clone(), f"{name}_output", active=tensor.requires_grad)
        )
    ref = memory.ref(tensor)
    declared_flat = torch.is_grad_enabled() and tensor.is_floating_point() and not tensor.requires_grad
    if declared_flat and recorder.state.grad_outside is None and book.flow.get(ref.name) == "active":
        return memory.replace(tensor, book.node(aten.detach.default, {"self": ref}, tensor))
    return ref


def _listen(recorder: Recorder, outputs: list[Tensor], inputs: tuple[Ref, ...], gradients: dict[Ref, Tensor]) -> None:
    """Keep what the user's backward returns for each input."""

    def hook(returned: tuple[Tensor | None, ...], _: Any) -> None:
        if recorder.state.adjoints.listening:
            for ref, gradient in zip(inputs, returned, strict=False):
                if gradient is not None:
                    gradients[ref] = gradients[ref] + gradient if ref in gradients else gradient.detach().clone()

    function = next((tensor.grad_fn for tensor in outputs if isinstance(tensor.grad_fn, BackwardCFunction)), None)
    if function is not None:
        function.register_hook(hook)


def _unseen(recorder: Recorder, plain: Apply, args: Any) -> Any:
    """A Function of torch's own that only carries hooks: its outputs are its inputs."""
    with recorder.calls.off():
        outputs = plain(*args)
        for before, after in zip(args, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            if isinstance(after, Tensor) and recorder.state.memory.find(after) is None:
                ref = recorder.state.memory.ref(before)
                recorder.state.memory.add(after, ref, parent=recorder.state.memory.find(before))
    return outputs


def _checkpointed(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
    """A reentrant checkpoint by the other method, which computes the same, with its inside visible to autograd.

    Where no input requires grad, a reentrant checkpoint has no gradient at all, a known trap: so it is here.
    """
    if any(tensor.requires_grad for tensor in tensors_in(args)):
        return checkpoint(
            function,
            *args,
            use_reentrant=False,
            preserve_rng_state=preserve_rng_state,
            determinism_check="none",
        )
    with torch.no_grad():
        return function(*args)
