"""A multi-layer perceptron: linear maps with an activation between them; normalisation and dropout if wanted.

    hidden layer:  y = dropout(activation(norm(x Wᵀ + b)))        Ioffe and Szegedy 2015, "Batch Normalization", section 3.2:
                                                                  the norm stands before the activation

B batch, I inputs, O outputs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]

# By the names that a configuration uses. batch: over the rows of a batch, each unit by itself; layer and rms: over the
# units, each row by itself.
NORMS: Mapping[str, Norm] = MappingProxyType({"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm})


class MLP(nn.Module):
    """widths = (2, 3, 1): 2 inputs, 3 hidden units, 1 output. After the last map comes `output`, if given."""

    def __init__(
        self,
        widths: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        output: Callable[[Tensor], Tensor] | None = None,
        *,
        norm: Norm | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths are {tuple(widths)}; at least inputs and outputs are needed, each 1 or more")
        norms = [norm(width) for width in widths[1:-1]] if norm else []
        # A batch norm subtracts the mean over the rows, and with it any bias.
        biases = (
            [*(not isinstance(module, nn.BatchNorm1d) for module in norms), True] if norms else [True] * len(widths)
        )
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs, bias=bias)
            for (inputs, outputs), bias in zip(pairwise(widths), biases, strict=False)
        )
        self.norms = nn.ModuleList(norms)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.activation = activation
        self.output = output

    def forward(self, x_BI: Tensor) -> Tensor:
        """(B, I) to (B, O)."""
        for place, layer in enumerate(self.layers[:-1]):
            x_BI = self.hidden(layer(x_BI), place)
        y_BO: Tensor = self.layers[-1](x_BI)
        return y_BO if self.output is None else self.output(y_BO)

    def hidden(self, x_BH: Tensor, place: int) -> Tensor:
        """What follows the linear map of a hidden layer."""
        x_BH = self.norms[place](x_BH) if self.norms else x_BH
        x_BH = self.activation(x_BH)
        return x_BH if self.dropout is None else self.dropout(x_BH)
