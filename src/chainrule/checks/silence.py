"""Parameters that the user's own backward gives no gradient, and whether the loss depends on them all the same.

A zero gradient is no fault by itself: an adapter whose second factor starts at zero, a unit that is switched off, a
residual branch with a zero gate all get their turn. So every suspect is looked at again where all parameters are moved a
little, and where it alone is moved; only what stays without gradient there is silent.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.parameters.owners import trained
from chainrule.checks.subject import Subject
from chainrule.tolerance import forward_limit

JOINT, ALONE = 0.3, (0.1, 1.0, 3.0)  # steps in units of the tensor's rms: small ones, and one that gets over a rounding
DRAWS = 3
MOST = 48  # suspects that are moved alone: a pass each


@dataclass(frozen=True)
class Silent:
    """A parameter without gradient.

    missing  True if autograd gave None, False if zeros
    effect   by how much the loss changes when the parameter is moved; 0.0 if not at all beyond rounding
    """

    path: str
    missing: bool
    effect: float


def silent_parameters(subject: Subject) -> list[Silent]:
    """The silent ones among the parameters that training is to move, in the model's order."""
    return subject.once("silent parameters", lambda: _silent(subject))


def _silent(subject: Subject) -> list[Silent]:
    wanted, gradients = trained(subject.setup), subject.own.gradients
    if not any(_is_nothing(gradient) for path, gradient in gradients.items() if path in wanted):
        return []

    def probe(copies: Copies) -> list[Silent]:
        leaves = {path: tensor for path, tensor in copies.trainable.items() if path in wanted}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [*_Probe(subject, copies, leaves).silent()]

    return on_copies(subject.setup, subject.batch, probe, seed=subject.seed)


class _Probe:
    """One run of the search, on copies."""

    def __init__(self, subject: Subject, copies: Copies, leaves: Mapping[str, Tensor]) -> None:
        self.copies, self.leaves = copies, leaves
        self.generator = subject.generator(31)
        self.nodes = len(subject.graph.nodes)

    def silent(self) -> Iterator[Silent]:
        """Every silent parameter."""
        if not self.leaves:
            return
        gradients = self._gradients()
        suspects = {path for path, gradient in gradients.items() if _is_nothing(gradient)}
        for _ in range(DRAWS if suspects else 0):
            with moved(self.leaves, JOINT, self.generator):
                suspects -= {path for path, gradient in self._gradients().items() if not _is_nothing(gradient)}
        if not suspects:
            return
        limit = self._limit()
        for path in [path for path in self.leaves if path in suspects][:MOST]:
            effect = self._effect(path, limit)
            if effect is not None:
                yield Silent(path, gradients[path] is None, effect)

    def _gradients(self) -> dict[str, Tensor | None]:
        loss = self.copies.loss()
        if not loss.requires_grad:
            return dict.fromkeys(self.leaves)
        gradients = torch.autograd.grad(loss, [*self.leaves.values()], allow_unused=True)
        return dict(zip(self.leaves, gradients, strict=True))

    def _limit(self) -> float:
        first, second = self.copies.value(), self.copies.value()
        self.base = first
        dtype = next(iter(self.leaves.values())).dtype
        return forward_limit(dtype, self.nodes, first, abs(first - second)).value

    def _effect(self, path: str, limit: float) -> float | None:
        """The largest change of the loss; None if the parameter gets a gradient somewhere near."""
        one, effect = {path: self.leaves[path]}, 0.0
        for scale in ALONE:
            with moved(one, scale, self.generator):
                if not _is_nothing(self._gradients()[path]):
                    return None
                effect = max(effect, abs(self.copies.value() - self.base))
        return effect if effect > limit else 0.0


@contextmanager
def moved(tensors: Mapping[str, Tensor], scale: float, generator: torch.Generator) -> Iterator[None]:
    """While the block runs, each tensor has noise of `scale` times its rms added; then they are as before, bit for bit."""
    typical = typical_size(tensors.values())
    before = {path: tensor.detach().clone() for path, tensor in tensors.items()}
    with torch.no_grad():
        for tensor in tensors.values():
            size = float(tensor.float().pow(2).mean().sqrt()) if tensor.numel() else 0.0
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor += (scale * (size or typical) * noise).to(tensor.device, tensor.dtype)
    try:
        yield
    finally:
        with torch.no_grad():
            for path, tensor in tensors.items():
                tensor.copy_(before[path])


def typical_size(tensors: Iterable[Tensor]) -> float:
    """Median rms of the tensors that are not all zero: how far to move one that is; 0.02 if all are zero."""
    sizes = sorted(float(t.float().pow(2).mean().sqrt()) for t in tensors if t.numel())
    sizes = [size for size in sizes if size > 0]
    return sizes[len(sizes) // 2] if sizes else 0.02


def _is_nothing(gradient: Tensor | None) -> bool:
    return gradient is None or not bool(gradient.any())
