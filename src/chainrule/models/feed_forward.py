"""The MLP of a Transformer block: each token by itself, wider in the middle.

B batch, T tokens, D width (hidden), M width of the MLP

plain   y = contract(f(expand(x)))                  Vaswani et al. 2017, eq. 2; M = 4 D
gated   y = contract(f(gate(x)) expand(x))          Shazeer 2020, "GLU Variants Improve Transformer", eq. 6 (SwiGLU
                                                    with f = SiLU); M = 8/3 D, for as many weights as the plain one
"""

from __future__ import annotations

from torch import Tensor, nn

from chainrule.models.activations import Activation

MULTIPLE = 8


def default_width(hidden: int, *, gated: bool) -> int:
    """4 D; gated 8/3 D, rounded up to a multiple of 8."""
    return -(-8 * hidden // (3 * MULTIPLE)) * MULTIPLE if gated else 4 * hidden


class PlainMLP(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, hidden: int, width: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden, width, bias=bias)
        self.contract = nn.Linear(width, hidden, bias=bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each token by itself: (B, T, D) to (B, T, D)."""
        h_BTM = self.activation(self.expand(x_BTD))
        y_BTD: Tensor = self.contract(h_BTM)
        return y_BTD


class GatedMLP(nn.Module):
    """One linear map gates the other."""

    def __init__(self, hidden: int, width: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, width, bias=bias)
        self.expand = nn.Linear(hidden, width, bias=bias)
        self.contract = nn.Linear(width, hidden, bias=bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each token by itself: (B, T, D) to (B, T, D)."""
        h_BTM = self.activation(self.gate(x_BTD)) * self.expand(x_BTD)
        y_BTD: Tensor = self.contract(h_BTM)
        return y_BTD
