"""A multi-layer perceptron: linear maps with an activation between them.

B batch, I inputs, O outputs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """widths = (2, 3, 1): 2 inputs, 3 hidden units, 1 output. After the last map comes `output`, if given."""

    def __init__(
        self,
        widths: Sequence[int],
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        output: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths are {tuple(widths)}; at least inputs and outputs are needed, each 1 or more")
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.activation = activation
        self.output = output

    def forward(self, x_BI: Tensor) -> Tensor:
        """(B, I) to (B, O)."""
        for layer in self.layers[:-1]:
            x_BI = self.activation(layer(x_BI))
        y_BO: Tensor = self.layers[-1](x_BI)
        return y_BO if self.output is None else self.output(y_BO)
