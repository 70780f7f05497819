"""The functions between two linear maps, by the names that a configuration uses.

sigmoid    1 / (1 + exp(-x))                       saturates at 0 and 1; never has a negative output
tanh       (exp(x) - exp(-x)) / (exp(x) + exp(-x)) saturates at -1 and 1
relu       max(0, x)                               no gradient below 0: a unit can die
gelu       x Phi(x), Phi the normal distribution   Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", eq. 2
gelu_tanh  GELU with Phi by a tanh                 the same paper's approximation; GPT-2's
silu       x sigmoid(x)                            the same paper, section 2; "swish"; Llama's
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))) / 2."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "gelu": F.gelu,
        "gelu_tanh": gelu_tanh,
        "silu": F.silu,
    }
)
