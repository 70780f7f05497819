"""How the matrices of a model begin, by the names that a configuration uses.

    gpt2        N(0, 0.02²); what ends in the residual stream smaller by sqrt(2 L)   Radford et al. 2019, section 2.3
    xavier      N(0, 2 / (inputs + outputs))                                         Glorot and Bengio 2010, eq. 16
    he          N(0, 2 / inputs), for ReLU                                           He et al. 2015, eq. 10
    orthogonal  a random matrix with orthonormal rows or columns                     Saxe et al. 2014, section 3

Embeddings begin as N(0, 0.02²), biases as 0, norms as 1, whichever is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

STD = 0.02
Generator = torch.Generator | None
Initialiser = Callable[[Tensor, float, Generator], object]
INTO_RESIDUAL = ("attention.output.weight", "mlp.contract.weight")


def gpt2_scaled(weight: Tensor, factor: float, generator: Generator) -> object:
    """N(0, (0.02 factor)²); the only one that heeds `factor`."""
    return weight.normal_(0.0, STD * factor, generator=generator)


def xavier(weight: Tensor, factor: float, generator: Generator) -> object:  # noqa: ARG001
    """Keep the variance of a linear network's signal, forward and backward on average."""
    return nn.init.xavier_normal_(weight, generator=generator)


def he(weight: Tensor, factor: float, generator: Generator) -> object:  # noqa: ARG001
    """Keep the variance of the signal through a ReLU, which drops half of it."""
    return nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def orthogonal(weight: Tensor, factor: float, generator: Generator) -> object:  # noqa: ARG001
    """Keep the length of every vector, up to the dimensions that are dropped."""
    return nn.init.orthogonal_(weight, generator=generator)


INITIALISERS: Mapping[str, Initialiser] = MappingProxyType(
    {"gpt2": gpt2_scaled, "xavier": xavier, "he": he, "orthogonal": orthogonal}
)


@torch.no_grad()
def initialise(model: nn.Module, layers: int, draw: Initialiser, generator: Generator) -> None:
    """Draw the weights of a Transformer of L layers.

    Each of the 2 L sums of the residual stream adds variance: the factor 1 / sqrt(2 L) keeps their total independent of
    depth.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif id(parameter) in embeddings:
            gpt2_scaled(parameter, 1.0, generator)
        elif parameter.ndim >= 2:
            draw(parameter, 1 / math.sqrt(2 * layers) if name.endswith(INTO_RESIDUAL) else 1.0, generator)
