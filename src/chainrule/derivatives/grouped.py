"""The product of each group of rows with its own matrix, as mixtures of experts use it. Suffixes: N rows, K contracted,
M columns, E experts, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules
from chainrule.errors import MissingRuleError

aten = torch.ops.aten
rules = Rules()


@rules.vjp(aten._grouped_mm.default, nondiff=("offs",), linear_in=("self", "mat2"))
def grouped_mm(
    g_NM: Tensor, y_NM: Tensor, self_NK: Tensor, mat2_EKM: Tensor, offs_E: Tensor | None, bias: Tensor | None
) -> Mapping[str, Tensor]:
    """y_n = x_n W_e, e(n) the group of row n     dL/dx_n = g_n W_eᵀ     dL/dW_e = Σ_n∈e x_nᵀ g_n"""
    if offs_E is None or bias is not None or (self_NK.dim(), mat2_EKM.dim()) != (2, 3):
        raise MissingRuleError(
            f"aten._grouped_mm of shapes {tuple(self_NK.shape)} and {tuple(mat2_EKM.shape)}: there is a rule for rows "
            "in groups, each with a matrix of its own (2-D by 3-D, with offs and without bias)"
        )
    by_self, by_mat2 = torch.zeros_like(self_NK), torch.zeros_like(mat2_EKM)
    for e, rows in enumerate(groups(offs_E)):
        by_self[rows] = g_NM[rows] @ mat2_EKM[e].mT
        by_mat2[e] = self_NK[rows].mT @ g_NM[rows]
    return {"self": by_self, "mat2": by_mat2}


def groups(offs_E: Tensor) -> Iterator[slice]:
    """The rows of each group, given where each ends; rows after the last group belong to none."""
    start = 0
    for end in offs_E.tolist():
        yield slice(start, end)
        start = end
