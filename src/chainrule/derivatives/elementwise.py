"""Elementwise functions of one tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()


@rules.local(aten.exp.default)
def exp(y: Tensor) -> Tensor:
    """y = exp(self)            dy/dself = y"""
    return y


@rules.local(aten.log.default, domain=lambda self: self > 0)
def log(y: Tensor, self: Tensor) -> Tensor:  # noqa: ARG001
    """y = ln self              dy/dself = 1 / self"""
    return 1 / self


@rules.local(aten.abs.default, kink=lambda self: self == 0, frozen=lambda at, self: torch.sign(at["self"]) * self)
def abs_(y: Tensor, self: Tensor) -> Tensor:  # noqa: ARG001
    """y = |self|               dy/dself = sign self      (0 at the kink, as PyTorch)"""
    return self.sign()
