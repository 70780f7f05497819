"""The derivative rules of all unit formulas, a file per family, merged and read-only."""

from __future__ import annotations

from chainrule.derivatives import (
    activation,
    arithmetic,
    attention,
    choice,
    convolution,
    cross_entropy,
    einsum,
    elementwise,
    embedding,
    flat,
    indexing,
    loss,
    matmul,
    norm,
    normalization,
    padding,
    pooling,
    recurrent,
    recurrent_cell,
    reduction,
    resampling,
    selection,
    shape,
    softmax,
)
from chainrule.derivatives.rule import merge

FAMILIES = (
    elementwise,
    arithmetic,
    choice,
    activation,
    shape,
    padding,
    norm,
    reduction,
    selection,
    softmax,
    matmul,
    einsum,
    indexing,
    embedding,
    normalization,
    attention,
    loss,
    cross_entropy,
    convolution,
    pooling,
    resampling,
    recurrent,
    recurrent_cell,
    flat,
)
RULES, FLAT = merge(family.rules for family in FAMILIES)
