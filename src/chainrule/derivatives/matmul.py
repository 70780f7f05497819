"""Products of matrices and vectors. Suffixes: N rows, K contracted, M columns, B batch, I and O in and out features.

Source: Giles, "An extended collection of matrix derivative results for forward and reverse mode AD", 2008, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()

# --- plain products ---------------------------------------------------------------------------------------------------


@rules.vjp(aten.mm.default, aten.bmm.default, linear_in=("self", "mat2"))
def mm(g_NM: Tensor, y_NM: Tensor, self_NK: Tensor, mat2_KM: Tensor) -> Mapping[str, Tensor]:
    """y = self @ mat2          dL/dself = g mat2ᵀ          dL/dmat2 = selfᵀ g"""
    return {"self": g_NM @ mat2_KM.mT, "mat2": self_NK.mT @ g_NM}


@rules.vjp(aten.mv.default, linear_in=("self", "vec"))
def mv(g_N: Tensor, y_N: Tensor, self_NK: Tensor, vec_K: Tensor) -> Mapping[str, Tensor]:
    """y = self @ vec           dL/dself = g vecᵀ           dL/dvec = selfᵀ g"""
    return {"self": torch.outer(g_N, vec_K), "vec": self_NK.mT @ g_N}


@rules.vjp(aten.dot.default, linear_in=("self", "tensor"))
def dot(g: Tensor, y: Tensor, self_K: Tensor, tensor_K: Tensor) -> Mapping[str, Tensor]:
    """y = Σ a_k b_k            dL/da = g b                 dL/db = g a"""
    return {"self": g * tensor_K, "tensor": g * self_K}


@rules.vjp(aten.vdot.default, linear_in=("self", "other"))
def vdot(g: Tensor, y: Tensor, self_K: Tensor, other_K: Tensor) -> Mapping[str, Tensor]:
    """y = Σ a_k b_k            dL/da = g b                 dL/db = g a"""
    return {"self": g * other_K, "other": g * self_K}


@rules.vjp(aten.outer.default, aten.ger.default, linear_in=("self", "vec2"))
def outer(g_NM: Tensor, y_NM: Tensor, self_N: Tensor, vec2_M: Tensor) -> Mapping[str, Tensor]:
    """y = a bᵀ                 dL/da = g b                 dL/db = gᵀ a"""
    return {"self": g_NM @ vec2_M, "vec2": g_NM.mT @ self_N}


@rules.vjp(aten.matmul.default, linear_in=("self", "other"))
def matmul(g: Tensor, y: Tensor, self: Tensor, other: Tensor) -> Mapping[str, Tensor]:
    """y = self @ other         dL/dself = g otherᵀ         dL/dother = selfᵀ g     (a vector is a matrix of one row)"""
    rows = self if self.dim() > 1 else self[None, :]
    columns = other if other.dim() > 1 else other[:, None]
    g_rows = g if other.dim() > 1 else g[..., None]
    g_full = g_rows if self.dim() > 1 else g_rows.unsqueeze(-2)
    by_self = g_full @ columns.mT
    by_other = _contract(rows, g_full) if other.dim() <= 2 else rows.mT @ g_full
    return {
        "self": by_self if self.dim() > 1 else by_self.squeeze(-2),
        "other": by_other if other.dim() > 1 else by_other.squeeze(-1),
    }


def _contract(a: Tensor, b: Tensor) -> Tensor:
    """Σ over all rows n of a_n b_nᵀ: one product of matrices instead of one per batch entry, summed."""
    rows = math.prod(a.shape[:-1])
    return a.reshape(rows, a.shape[-1]).mT @ b.reshape(rows, b.shape[-1])


# --- with something added ---------------------------------------------------------------------------------------------


@rules.vjp(aten.addmm.default, linear_in=("self", "mat1", "mat2"))
def addmm(
    g_NM: Tensor, y_NM: Tensor, mat1_NK: Tensor, mat2_KM: Tensor, beta: float, alpha: float
) -> Mapping[str, Tensor]:
    """y = β self + α mat1 @ mat2       dL/dself = β g      dL/dmat1 = α g mat2ᵀ        dL/dmat2 = α mat1ᵀ g"""
    scaled = _times(g_NM, alpha)
    return {"self": _times(g_NM, beta), "mat1": scaled @ mat2_KM.mT, "mat2": mat1_NK.mT @ scaled}


@rules.vjp(aten.baddbmm.default, linear_in=("self", "batch1", "batch2"))
def baddbmm(
    g_BNM: Tensor, y_BNM: Tensor, batch1_BNK: Tensor, batch2_BKM: Tensor, beta: float, alpha: float
) -> Mapping[str, Tensor]:
    """y = β self + α a_b @ b_b         dL/dself = β g      dL/da = α g bᵀ              dL/db = α aᵀ g"""
    scaled = _times(g_BNM, alpha)
    return {"self": _times(g_BNM, beta), "batch1": scaled @ batch2_BKM.mT, "batch2": batch1_BNK.mT @ scaled}


@rules.vjp(aten.addbmm.default, linear_in=("self", "batch1", "batch2"))
def addbmm(
    g_NM: Tensor, y_NM: Tensor, batch1_BNK: Tensor, batch2_BKM: Tensor, beta: float, alpha: float
) -> Mapping[str, Tensor]:
    """y = β self + α Σ_b a_b @ b_b     dL/dself = β g      dL/da_b = α g b_bᵀ          dL/db_b = α a_bᵀ g"""
    scaled = _times(g_NM, alpha)
    return {"self": _times(g_NM, beta), "batch1": scaled @ batch2_BKM.mT, "batch2": batch1_BNK.mT @ scaled}


@rules.vjp(aten.addmv.default, linear_in=("self", "mat", "vec"))
def addmv(g_N: Tensor, y_N: Tensor, mat_NK: Tensor, vec_K: Tensor, beta: float, alpha: float) -> Mapping[str, Tensor]:
    """y = β self + α mat @ vec         dL/dself = β g      dL/dmat = α g vecᵀ          dL/dvec = α matᵀ g"""
    scaled = _times(g_N, alpha)
    return {"self": _times(g_N, beta), "mat": torch.outer(scaled, vec_K), "vec": mat_NK.mT @ scaled}


@rules.vjp(aten.addr.default, linear_in=("self", "vec1", "vec2"))
def addr(g_NM: Tensor, y_NM: Tensor, vec1_N: Tensor, vec2_M: Tensor, beta: float, alpha: float) -> Mapping[str, Tensor]:
    """y = β self + α a bᵀ              dL/dself = β g      dL/da = α g b               dL/db = α gᵀ a"""
    scaled = _times(g_NM, alpha)
    return {"self": _times(g_NM, beta), "vec1": scaled @ vec2_M, "vec2": scaled.mT @ vec1_N}


def _times(g: Tensor, factor: float) -> Tensor:
    return g if factor == 1 else g * factor


# --- layers -----------------------------------------------------------------------------------------------------------


@rules.vjp(aten.linear.default, linear_in=("input", "weight", "bias"))
def linear(
    g_NO: Tensor, y_NO: Tensor, input_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None
) -> Mapping[str, Tensor | None]:
    """y = input @ weightᵀ + bias       dL/dinput = g weight        dL/dweight = gᵀ input       dL/dbias = Σ g"""
    bias = None if bias_O is None else g_NO
    if weight_OI.dim() == 1:
        return {"input": g_NO[..., None] * weight_OI, "weight": g_NO[..., None] * input_NI, "bias": bias}
    return {"input": g_NO @ weight_OI, "weight": _contract(g_NO, input_NI), "bias": bias}


@rules.vjp(aten.bilinear.default, linear_in=("input1", "input2", "weight", "bias"))
def bilinear(
    g: Tensor, y: Tensor, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None
) -> Mapping[str, Tensor | None]:
    """y_o = Σ_ij a_i W_oij b_j + c_o   dL/da = Σ g_o W_oij b_j     dL/db = Σ g_o a_i W_oij     dL/dW = Σ g_o a_i b_j"""
    return {
        "input1": torch.einsum("...o,oij,...j->...i", g, weight, input2),
        "input2": torch.einsum("...o,oij,...i->...j", g, weight, input1),
        "weight": torch.einsum("...o,...i,...j->oij", g, input1, input2),
        "bias": None if bias is None else g,
    }
