"""Which value of the graph each tensor of the run holds now.

Tensors that share memory form a family: one owns it, the others are views, each with the steps that lead to it. A write
through any of them gives the owner a new value, and the other members are derived anew when they are next used, as in
torch's own functionalization. What `detach` or `.data` made shares memory too, but not the history: autograd does not see
there what is written here, so each side has a history of its own, and takes the other's writes as given numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from chainrule.capture.lowering import Step, put_back, same_layout
from chainrule.capture.running import resolve
from chainrule.capture.tape_book import Book, memory_of
from chainrule.capture.tape_places import running_line
from chainrule.errors import CaptureError
from chainrule.graph import Ref, bind_arguments

aten = torch.ops.aten
# Told of each tensor and the value that it holds, as soon as it holds it.
Watch = Callable[[Tensor, Ref], None]


@dataclass(eq=False)
class Family:
    """Tensors on one memory.

    memory      identity of that memory, see `memory_of`
    owner       the tensor of which the others are views
    ref         the owner's value after the last write
    history     whose write that was: the gradient of `ref` goes to the members of this history alone
    generation  number of writes
    """

    memory: int
    owner: Tensor
    ref: Ref
    history: int
    generation: int = 0
    members: list[Held] = field(default_factory=list)


@dataclass(eq=False)
class Held:
    """A tensor, the value that it held at a generation of its family, and how it is viewed from the owner."""

    tensor: Tensor
    ref: Ref
    family: Family
    steps: tuple[Step, ...]
    history: int
    generation: int
    version: int


class Memory:
    """The tensors of the run. Each is kept alive, so that its identity stays its own."""

    def __init__(self, book: Book, watch: Watch) -> None:
        self._book, self._watch = book, watch
        self._unseen: set[Ref] = set()
        self._held: dict[int, Held] = {}
        self._families: dict[int, Family] = {}
        self._histories = count()

    def hide(self, refs: Iterable[Ref]) -> None:
        """Of these values autograd's hooks tell something else than their adjoint: watch none of them."""
        self._unseen.update(refs)

    def find(self, tensor: Tensor) -> Held | None:
        """The tensor's entry, if the run made it or met it."""
        return self._held.get(id(tensor))

    def ref(self, tensor: Tensor) -> Ref:
        """The value that the tensor holds now. Raises CaptureError if it came about, or changed, unseen."""
        held = self.find(tensor) or self._met(tensor)
        if memory_of(tensor) != held.family.memory:
            raise CaptureError(
                f"{running_line()}: the memory of a tensor of shape {tuple(tensor.shape)} was replaced "
                "(`x.data = ...` or `set_`), which a graph cannot hold. Make a new tensor instead"
            )
        if held.generation != held.family.generation:
            self._settle(held, self._present(held)[-1])
        elif version_of(tensor) != held.version:
            raise CaptureError(
                f"{running_line()}: a tensor of shape {tuple(tensor.shape)} was changed by something that torch's "
                "dispatcher does not show (NumPy, a C++ extension). Write to it with torch operations"
            )
        self._tell(tensor, held.ref)
        return held.ref

    def add(self, tensor: Tensor, ref: Ref, *, parent: Held | None = None, step: Step | None = None) -> Held:
        """A tensor that holds the value `ref`: the owner of new memory, or a view of its parent by one more step."""
        if parent is None:
            history, steps = next(self._histories), ()
            family = self._families[memory_of(tensor)] = Family(memory_of(tensor), tensor, ref, history)
        else:
            family, steps, history = parent.family, (*parent.steps, *((step,) if step else ())), parent.history
        held = Held(tensor, ref, family, steps, history, family.generation, version_of(tensor))
        family.members.append(held)
        self._held[id(tensor)] = held
        self._tell(tensor, ref)
        return held

    def add_detached(self, tensor: Tensor, source: Tensor) -> Ref:
        """A tensor that `detach` or `.data` made: the same numbers, with no gradient and a history of its own."""
        ref = self._detached(self.ref(source), tensor)
        self.add(tensor, ref, parent=self._held[id(source)]).history = next(self._histories)
        return ref

    def detach_in_place(self, tensor: Tensor) -> None:
        """`detach_`: the tensor leaves its history."""
        held = self._held[id(tensor)]
        held.history = next(self._histories)
        if not held.steps:
            held.family.history = held.history
        self._settle(held, self._detached(held.ref, tensor))

    def relative(self, tensor: Tensor, others: list[Tensor]) -> Held | None:
        """The entry of that one of the others with which the tensor shares memory; None if it has memory of its own."""
        if memory_of(tensor) not in self._families:
            return None
        sharing = [held for other in others if memory_of(other) == memory_of(tensor) and (held := self.find(other))]
        return sharing[0] if sharing else self._twin(tensor)

    def before_write(self, tensor: Tensor) -> list[Ref]:
        """The owner's value and its views down to the tensor, which is about to be written to; the last is the tensor's.

        A view is viewed anew: autograd hands the gradient of a write to the owner, past the view that was there before.
        """
        self.ref(tensor)
        self._book.protect(tensor)
        return self._present(self._held[id(tensor)])

    def write(self, tensor: Tensor, ref: Ref, before: list[Ref], *, silent: bool) -> None:
        """The tensor was written to and holds the value `ref` now; so its family changes.

        before  what `before_write` gave
        silent  True if autograd was off: the gradient goes on to what was there before
        """
        held = self._held[id(tensor)]
        family = held.family
        changed = self._put_back(held, ref, before)
        if silent and self._book.flow.get(before[0].name) == "active":
            changed = self._straight_through(before[0], changed, family.owner.detach())
        family.ref, family.history = changed, held.history
        family.generation += 1
        for member in (held, self._held[id(family.owner)]):
            if not member.steps and member.history == family.history:
                self._settle(member, family.ref)

    def renew(self, tensor: Tensor) -> None:
        """Autograd counts a write where a Function marks its input as changed; that is none of ours."""
        self._held[id(tensor)].version = version_of(tensor)

    def replace(self, tensor: Tensor, ref: Ref) -> Ref:
        """From here on the tensor holds `ref`, apart from whatever it shared memory with."""
        self.add(tensor, ref)
        return ref

    def reshape(self, tensor: Tensor, ref: Ref, step: Step, before: Tensor) -> None:
        """The tensor is seen in another way from now on (transpose_); `before` is the same memory as it was seen before."""
        held = self._held[id(tensor)]
        if held.family.owner is tensor:
            self.add(before, held.ref, parent=held)
            held.family.owner = before
        held.steps = (*held.steps, step)
        self._settle(held, ref)

    def _settle(self, held: Held, ref: Ref) -> None:
        held.ref, held.generation, held.version = ref, held.family.generation, version_of(held.tensor)
        self._tell(held.tensor, ref)

    def _tell(self, tensor: Tensor, ref: Ref) -> None:
        if ref not in self._unseen:
            self._watch(tensor, ref)

    def _present(self, held: Held) -> list[Ref]:
        """The owner's present value, as the history of `held` sees it, and its views down to `held`, as new nodes."""
        family = held.family
        value = self._book.value(family.ref)
        if held.history == family.history:
            return self._viewed(family.ref, value, held.steps)
        refs = self._viewed(self._detached(family.ref, value), value, held.steps)
        if held.generation != family.generation and held.tensor.requires_grad:
            refs[-1] = self._straight_through(held.ref, refs[-1], held.tensor.detach())
        return refs

    def _viewed(self, ref: Ref, value: Any, steps: tuple[Step, ...]) -> list[Ref]:
        """The value `ref`, and new nodes for its views after each of the steps."""
        refs = [ref]
        for step in steps:
            output = _run(step, value, self._book)
            ref = self._book.node(step.op, step.at(ref), output)
            ref, value = (ref, output) if step.index is None else (Ref(ref.name, step.index), output[step.index])
            refs.append(ref)
        return refs

    def _put_back(self, held: Held, ref: Ref, before: list[Ref]) -> Ref:
        """The owner's value after the view `held` took the value `ref`."""
        values = [held.family.owner.detach()]
        for step in held.steps:
            output = _run(step, values[-1], self._book)
            values.append(output if step.index is None else output[step.index])
        for step, base, value in reversed(list(zip(held.steps, before, values, strict=False))):
            try:
                written = put_back(step, base, ref)
            except KeyError:
                raise CaptureError(
                    f"{running_line()}: a write through {step.op} cannot be followed. Write to the tensor itself, "
                    "or to a select or slice of it"
                ) from None
            if written is not None:
                op, args = written
                ref = self._book.node(op, bind_arguments(op, args, {}), value)
        return ref

    def _detached(self, ref: Ref, value: Any) -> Ref:
        if ref.name not in self._book.flow:
            return ref
        return self._book.node(aten.detach.default, {"self": ref}, value)

    def _straight_through(self, old: Ref, new: Ref, now: Tensor) -> Ref:
        """A write that autograd does not see: the new numbers, and the derivative of the old. old + detach(new - old)."""
        change = self._book.node(
            aten.sub.Tensor, bind_arguments(aten.sub.Tensor, (new, old), {}), now - self._book.value(old)
        )
        fixed = self._book.node(aten.detach.default, {"self": change}, self._book.value(change))
        through = self._book.node(aten.add.Tensor, bind_arguments(aten.add.Tensor, (old, fixed), {}), now)
        self.hide([through])
        return through

    def _met(self, tensor: Tensor) -> Held:
        """A tensor that no recorded operation made: `.data` of one that did, or a constant from outside."""
        if tensor.requires_grad and torch._C._current_graph_task_id() != -1:
            raise CaptureError(
                f"{running_line()}: a gradient is taken inside loss(model, batch) and its own derivative is wanted "
                "(create_graph=True), which chainrule does not support. Leave that term out for the check"
            )
        twin = self._twin(tensor) if memory_of(tensor) in self._families else None
        if twin is not None and tensor._is_view():  # as_subclass
            ref = self._book.node(aten.alias.default, {"self": self.ref(twin.tensor)}, tensor)
            return self.add(tensor, ref, parent=twin)
        if tensor.requires_grad and not tensor.is_leaf:
            raise CaptureError(
                f"{running_line()}: a tensor of shape {tuple(tensor.shape)} with a gradient ({tensor.grad_fn.name()}) was "  # type: ignore[union-attr]
                "computed by something that torch's dispatcher does not show, such as a torch.func transform. "
                "Compute it with torch operations inside loss(model, batch)"
            )
        if twin is not None:
            self.add_detached(tensor, twin.tensor)
        else:
            ref = self._book.leaf("constant", tensor.detach().clone(), "constant", active=tensor.requires_grad)
            self.add(tensor, ref)
        return self._held[id(tensor)]

    def _twin(self, tensor: Tensor) -> Held | None:
        members = self._families[memory_of(tensor)].members
        return next((held for held in reversed(members) if same_layout(held.tensor, tensor)), None)


def version_of(tensor: Tensor) -> int:
    """How often the tensor's memory was written to; 0 where torch does not count (inference mode)."""
    return 0 if tensor.is_inference() else tensor._version


def _run(step: Step, value: Tensor, book: Book) -> Any:
    if not step.of:
        raise CaptureError(f"{running_line()}: a tensor that {step.op} made shares memory with one that was written to")
    arguments: Mapping[str, Any] = {**{k: resolve(v, book.values) for k, v in step.arguments.items()}, step.of: value}
    output = step.op(**arguments)
    return tuple(output) if isinstance(output, list) else output
