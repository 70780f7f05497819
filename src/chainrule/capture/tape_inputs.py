"""The run's own copies of the user's tensors, and of everything in a wider dtype if one is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.capture.export import LossModule
from chainrule.capture.nodes import LOSS_PATH
from chainrule.capture.promote import promoted_dtype
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_calls import Arguments, with_each_tensor
from chainrule.capture.tape_memory import Memory
from chainrule.errors import CaptureError
from chainrule.graph import LeafKind, Ref

aten = torch.ops.aten


class StandIns:
    """What stands in for each tensor of the user's: a copy, so that the run changes nothing of theirs.

    dtype   the floating dtype of the whole run, or None to keep each tensor's own
    copies  False where the run is the user's own, which works on the tensors themselves
    """

    def __init__(self, dtype: torch.dtype | None, *, copies: bool = True) -> None:
        self.dtype, self._copying = dtype, copies
        self._copies: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by id; the original is kept too, so that the id stays its own

    def copy(self, tensor: Tensor) -> Tensor:
        """The copy of a tensor, that autograd treats alike; a parameter's has the attributes that it was given."""
        if not self._copying:
            return tensor
        if id(tensor) not in self._copies:
            value = tensor.detach().clone().to(self._wide(tensor.dtype))
            copy = value.requires_grad_(tensor.requires_grad)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(value.detach(), requires_grad=tensor.requires_grad)
                vars(copy).update(vars(tensor))
            self._copies[id(tensor)] = (tensor, copy)
        return self._copies[id(tensor)][1]

    def of(self, tensor: Tensor) -> Tensor:
        """The copy of a tensor of the user's; any other tensor is itself."""
        return self._copies[id(tensor)][1] if id(tensor) in self._copies else tensor

    def adapted(
        self, op: Any, args: Arguments, kwargs: dict[str, Any], memory: Memory | None = None
    ) -> tuple[Arguments, dict[str, Any]]:
        """The arguments with the copies in them, and with every floating tensor and dtype widened.

        memory  knows the run's own tensors; without one (in a backward) a narrow tensor is simply cast
        """
        if self.dtype is None:
            return with_each_tensor((args, kwargs), self.of)  # type: ignore[no-any-return]
        if op is aten.view.dtype:
            raise CaptureError(f"view({args[1]}) reads the bits of a tensor, which has no counterpart in {self.dtype}")
        args, kwargs = with_each_tensor((args, kwargs), lambda tensor: self._widened(self.of(tensor), memory))
        return self._wide_dtypes(args), self._wide_dtypes(kwargs)

    def _widened(self, tensor: Tensor, memory: Memory | None) -> Tensor:
        if self._wide(tensor.dtype) == tensor.dtype or not tensor.is_leaf:
            return tensor
        if memory is None:
            return tensor.to(self._wide(tensor.dtype))
        return tensor if memory.find(tensor) else self.copy(tensor)

    def _wide(self, dtype: torch.dtype) -> torch.dtype:
        return dtype if self.dtype is None else promoted_dtype(dtype, self.dtype)

    def _wide_dtypes(self, value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return self._wide(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self._wide_dtypes(item) for item in value)
        if isinstance(value, dict):
            return {key: self._wide_dtypes(item) for key, item in value.items()}
        return value


@dataclass(frozen=True, eq=False)
class Inputs:
    """What goes into the run.

    state       parameters and buffers by their names in the LossModule, a tied one under each of its names
    tensors     of the batch, in the order in which `LossModule.forward` takes them
    parameters  those that require grad, by leaf
    buffers     leaf of each buffer, by its name in the LossModule
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    parameters: dict[Ref, Tensor] = field(default_factory=dict)
    buffers: dict[str, Ref] = field(default_factory=dict)


def inputs_of(root: LossModule, stand_ins: StandIns, book: Book, memory: Memory) -> Inputs:
    """Copies of the parameters, buffers and batch of loss(model, batch), each written down as a leaf."""
    inputs = Inputs()
    buffers = dict(root.named_buffers(remove_duplicate=False))
    state = dict(root.named_parameters(remove_duplicate=False)) | buffers
    paths: dict[int, tuple[str, ...]] = {}
    for name, tensor in state.items():
        paths[id(tensor)] = (*paths.get(id(tensor), ()), path_of(name))
    for name, tensor in state.items():
        copy = inputs.state[name] = stand_ins.copy(tensor)
        if memory.find(copy) is None:
            kind: LeafKind = "buffer" if name in buffers else "parameter"
            mine, trainable = paths[id(tensor)], kind == "parameter" and tensor.requires_grad
            ref = book.leaf(
                kind, copy, f"{kind[0]}_{mine[0]}", paths=mine, trainable=trainable, active=copy.requires_grad
            )
            memory.add(copy, ref)
            if trainable:
                inputs.parameters[ref] = copy
        if name in buffers:
            inputs.buffers[name] = memory.ref(copy)
    for place, tensor in tensors_of(root.batch).items():
        copy = stand_ins.copy(tensor)
        inputs.tensors.append(copy)
        if memory.find(copy) is None:
            memory.add(copy, book.leaf("batch", copy, f"batch_{place}", paths=(place,), active=copy.requires_grad))
    return inputs


def path_of(name: str) -> str:
    """The path under which results are reported, by the name in the LossModule."""
    owner, _, rest = name.partition(".")
    return rest if owner == "model" else f"{LOSS_PATH}.{rest}"
