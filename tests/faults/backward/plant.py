"""A planted backward fault: a kind of mistake at a known module of the host, at a known size, and its correct twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from faults.backward.formula import Formula, Log, Wrong, function_of, relative_error
from faults.backward.host import Host, host, loss

Built = tuple[Host, Any, tuple[Tensor, Tensor]]
SIZES = (1e-1, 1e-2, 1e-3, 1e-4)
DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Plant:
    """One fault at one site.

    kind         what is wrong, in words
    site         the formula whose backward is wrong
    module_path  the module that a check has to name
    wrong        the wrong backward
    scalable     the error can be shrunk to a given size; otherwise it has its natural size only
    dtypes       those in which it is a fault (rounding to bfloat16 is none in bfloat16)
    victims      other modules that a check may name: the fault overwrites a tensor of theirs
    """

    kind: str
    site: str
    module_path: str
    wrong: Wrong
    scalable: bool = True
    dtypes: tuple[torch.dtype, ...] = DTYPES
    victims: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}@{self.module_path}".replace(" ", "_")

    def build(
        self, dtype: torch.dtype = torch.float64, size: float | None = None, seed: int = 0, *, only: bool = False
    ) -> Built:
        """(model, loss, batch) with the fault at the relative `size`, its natural one if None.

        only  the Function refuses every other dtype, as a compiled kernel does
        """
        return planted(self.module_path, self.function(size, seed, only=dtype if only else None), dtype, seed)

    def twin(
        self, dtype: torch.dtype = torch.float64, seed: int = 0, *, wide: bool = True, only: bool = False
    ) -> Built:
        """The same model with the same custom Function whose backward is right; `wide` as in `function_of`."""
        function = function_of(self.formula, wide=wide, only=dtype if only else None)
        return planted(self.module_path, function, dtype, seed)

    @property
    def formula(self) -> Formula:
        """The formula that the module computes."""
        return host(torch.float64, 0)[0].get_submodule(self.module_path).formula

    def function(
        self, size: float | None = None, seed: int = 0, *, log: Log | None = None, only: torch.dtype | None = None
    ) -> type[Function]:
        """The Function with the fault."""
        mix = None if size is None else self.mix(size, seed)
        return function_of(self.formula, self.wrong, mix, log=log, only=only)

    def alone(self, size: float | None = None, seed: int = 0) -> tuple[type[Function], tuple[Tensor, ...]]:
        """(the Function with the fault, its real inputs in float64): what gradcheck is given."""
        return self.function(size, seed), inputs_at(self.module_path, seed)

    def twin_alone(self, seed: int = 0) -> tuple[type[Function], tuple[Tensor, ...]]:
        """(the Function whose backward is right, its real inputs in float64)."""
        return function_of(self.formula), inputs_at(self.module_path, seed)

    def mix(self, size: float, seed: int) -> tuple[float, ...]:
        """Weights of the error such that ‖error‖ = size·‖gradient‖ in each tensor that has one (in float64)."""
        if not self.scalable:
            raise ValueError(f"{self}: this fault has its natural size only; build it with size=None")
        natural = self.errors_of(torch.float64, None, seed)
        return tuple(size / error if error else 0.0 for error in natural)

    def errors_of(self, dtype: torch.dtype, size: float | None, seed: int = 0) -> list[float]:
        """Relative error of each gradient that the Function returns, in the given dtype, on the model's own batch."""
        log = Log()
        model, loss_, batch = planted(self.module_path, self.function(size, seed, log=log), dtype, seed)
        gradients(model, loss_, batch)
        return log.relative_errors()

    def measured(self, dtype: torch.dtype, size: float | None = None, seed: int = 0) -> float:
        """The largest relative error of a tensor's gradient; for a fault that overwrites, of a parameter's."""
        own = max(self.errors_of(dtype, size, seed))
        return own or self.damage(dtype, size, seed)

    def damage(self, dtype: torch.dtype, size: float | None = None, seed: int = 0) -> float:
        """The largest relative difference to the twin's gradient, over parameters that are more than rounding."""
        wrong = gradients(*self.build(dtype, size, seed))
        right = gradients(*self.twin(dtype, seed))
        largest = max(float(gradient.norm()) for gradient in right.values())
        kept = [name for name, gradient in right.items() if float(gradient.norm()) > 1e-3 * largest]
        return max(relative_error([(wrong.get(name), right[name])]) for name in kept)


def planted(module_path: str, function: type[Function], dtype: torch.dtype, seed: int) -> Built:
    """The host with the Function at one module."""
    model, batch = host(dtype, seed)
    model.get_submodule(module_path).function = function
    return model, loss, batch


def gradients(model: Host, loss_: Any, batch: Any) -> dict[str, Tensor]:
    """The user's own backward, once, dropout masks by seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss_(model, batch).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def inputs_at(module_path: str, seed: int = 0) -> tuple[Tensor, ...]:
    """The real inputs of the site's Function in float64, detached, as a user would hand them to gradcheck."""
    model, batch = host(torch.float64, seed)
    site = model.get_submodule(module_path)
    seen: list[tuple[Tensor, ...]] = []
    with site.register_forward_pre_hook(lambda _, inputs: seen.append((*inputs, *site.own()))):
        gradients(model, loss, batch)
    return tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in seen[0])
