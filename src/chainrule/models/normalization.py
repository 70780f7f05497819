"""What keeps the scale of the residual stream before attention, MLP and head, each token by itself.

layer  y = (x - mean(x)) / sqrt(var(x) + eps) w + b     Ba, Kiros and Hinton 2016, "Layer Normalization", eq. 4
rms    y = x / sqrt(mean(x²) + eps) w                   Zhang and Sennrich 2019, "Root Mean Square Layer
                                                        Normalization", eq. 4: no mean to subtract, no bias
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

Norm = Callable[[int, float, bool], nn.Module]


def layer_norm(hidden: int, epsilon: float, bias: bool) -> nn.Module:
    """The layer norm of GPT-2."""
    return nn.LayerNorm(hidden, eps=epsilon, bias=bias)


def rms_norm(hidden: int, epsilon: float, bias: bool) -> nn.Module:  # noqa: ARG001
    """The norm of Llama; it has no bias, whatever the other parts have."""
    return nn.RMSNorm(hidden, eps=epsilon)


NORMS: Mapping[str, Norm] = MappingProxyType({"layer": layer_norm, "rms": rms_norm})
