"""One run of the user's loss in which every input of the model can be differentiated, integer ones by their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from chainrule.capture.batches import tensors_of, with_tensors
from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.subject import Subject
from chainrule.finding import NotRun, Outcome

# (the input or embedding, its integer indices or None) -> what the model is given in its place
Alter = Callable[[Tensor, Tensor | None], Tensor]
_LOOKUPS = (F.embedding, torch.embedding)
_WEIGHTS_FIRST = (torch.embedding,)
_PREFERRED = ("logits", "prediction_logits", "last_hidden_state")


@dataclass(frozen=True, eq=False)
class Tap:
    """An input at which the model can be differentiated.

    value    a floating input of the model, or what an embedding returned
    indices  the integers that the embedding looked up; None for a floating input
    place    of a floating input among the model's arguments
    """

    value: Tensor
    indices: Tensor | None
    place: str = ""


@dataclass(frozen=True, eq=False)
class Run:
    """What one run gave: the loss, the main output of the model's first call, its inputs, and dL/doutput (None if unused)."""

    loss: Tensor
    output: Tensor
    taps: tuple[Tap, ...]
    score: Tensor | None


class Tapping(TorchFunctionMode):
    """While it is on, the result of every embedding is written down, after it was altered."""

    def __init__(self, alter: Alter | None) -> None:
        super().__init__()
        self.alter = alter
        self.taps: list[Tap] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch calls this for every torch function."""
        result = func(*args, **(kwargs or {}))
        if func not in _LOOKUPS or not torch.is_grad_enabled():
            return result
        named = dict(zip(("weight", "input") if func in _WEIGHTS_FIRST else ("input", "weight"), args, strict=False))
        indices = (named | (kwargs or {}))["input"]
        if self.alter is not None:
            result = self.alter(result, indices)
        if not result.requires_grad:
            result = result.detach().requires_grad_()
        self.taps.append(Tap(result, indices))
        return result


def on_tapped_copies(subject: Subject, look: Callable[[Subject, Copies], Outcome]) -> Outcome:
    """look(subject, copies), where runs may be differentiated that write a cache in place, as some models do in eval mode."""
    with allow_mutation_on_saved_tensors():
        return on_copies(subject.setup, subject.batch, lambda copies: look(subject, copies), seed=subject.seed)


def run(copies: Copies, alter: Alter | None = None) -> Run | None:
    """Run the loss on the batch; None if it does not call the model, or the model's output carries no gradient."""
    floating: list[Tap] = []
    outputs: list[Any] = []

    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        given = with_tensors((args, kwargs), lambda tensor: _input(tensor, alter))
        floating.extend(Tap(t, None, place) for place, t in tensors_of(given).items() if t.requires_grad)
        return given

    hooks = [
        copies.model.register_forward_pre_hook(enter, with_kwargs=True),
        copies.model.register_forward_hook(lambda *args: outputs.append(args[-1])),
    ]
    try:
        with Tapping(alter) as tapping:
            loss = copies.loss()
    finally:
        for hook in hooks:
            hook.remove()
    output = main_output(outputs[0]) if outputs else None
    if output is None or not output.requires_grad:
        return None
    return Run(loss, output, (*tapping.taps, *floating), _score(loss, output))


def main_output(output: Any) -> Tensor | None:
    """The tensor of predictions in what a model returned: logits if they are named, else the first with an axis to spare."""
    if isinstance(output, Tensor):
        return output if output.dim() >= 2 and output.is_floating_point() else None
    members = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    for name in _PREFERRED:
        if isinstance(members.get(name), Tensor):
            return main_output(members[name])
    items = members.values() if members else output if isinstance(output, (list, tuple)) else ()
    return next((found for item in items if (found := main_output(item)) is not None), None)


def gradients_of(run: Run, cotangent: Tensor) -> list[Tensor]:
    """d⟨cotangent, output⟩/dtap for every tap; zeros where it has no influence."""
    values = [tap.value for tap in run.taps]
    found = torch.autograd.grad(run.output, values, cotangent, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for g, v in zip(found, values, strict=True)]


def modes(copies: Copies) -> Iterator[str]:
    """Put the model in each mode in which it is to be looked at, and name it; batch statistics are never used."""
    _hold_statistics(copies.model)
    yield "as it is trained"
    if any(module.training for module in copies.model.modules()):
        copies.model.eval()
        yield "in eval mode"


def in_each_mode(copies: Copies, look: Callable[[Run, str], Outcome | None], nothing: str) -> Outcome:
    """The first outcome of look(run, mode) that says something.

    look     None where the run has nothing of the kind that it looks at
    nothing  why the check could not be made, if that is so in every mode
    """
    looked = False
    for mode in modes(copies):
        result = run(copies)
        if result is None:
            return NotRun("the loss does not call the model as a whole, or its output carries no gradient")
        outcome = look(result, mode)
        if isinstance(outcome, NotRun) or outcome:
            return outcome
        looked = looked or outcome is not None
    return [] if looked else NotRun(nothing)


def _hold_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.eval()


def _input(tensor: Tensor, alter: Alter | None) -> Tensor:
    if not tensor.is_floating_point() or is_mask(tensor):
        return tensor
    copy = tensor.detach().clone()
    return (copy if alter is None else alter(copy, None)).requires_grad_()


def is_mask(tensor: Tensor) -> bool:
    """True for a tensor of zeros and ones."""
    return bool(((tensor == 0) | (tensor == 1)).all())


def _score(loss: Tensor, output: Tensor) -> Tensor | None:
    if not loss.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(loss, [output], retain_graph=True, allow_unused=True)
    return gradient
