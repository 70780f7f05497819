"""Ops whose output does not move with their input: comparisons, indices, counts, fresh tensors, draws, steps, `detach`.

`detach` is not flat as a function; to declare it so says that no gradient passes, which is what the user asked for.
"""

from __future__ import annotations

import torch
from torch._ops import OpOverloadPacket

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()

rules.flat(aten.detach.default)


def _every(*packets: OpOverloadPacket) -> None:
    """Declare flat each overload that yields tensors or nothing; the others work on Python's numbers and strings."""
    for packet in packets:
        for name in packet.overloads():  # type: ignore[no-untyped-call]
            op = getattr(packet, name)
            returned = [str(value.type) for value in op._schema.returns]
            if all(kind == "Tensor" for kind in returned) and not op._schema.is_mutable:
                rules.flat(op)


# --- a truth value, an index or a count -------------------------------------------------------------------------------
_every(aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.isclose, aten.isin)
_every(aten.isnan, aten.isinf, aten.isfinite, aten.isposinf, aten.isneginf, aten.isreal, aten.signbit)
_every(aten.logical_and, aten.logical_or, aten.logical_xor, aten.logical_not, aten.any, aten.all)
_every(aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor, aten.bitwise_not)
_every(aten.bitwise_left_shift, aten.bitwise_right_shift)
_every(aten.__and__, aten.__or__, aten.__xor__, aten.__lshift__, aten.__rshift__)
_every(aten.argmax, aten.argmin, aten.argsort, aten.nonzero, aten.nonzero_static, aten.searchsorted, aten.bucketize)
_every(aten.count_nonzero, aten.bincount, aten.histc, aten.one_hot, aten._unique2, aten.unique_dim)
_every(aten.unique_consecutive, aten.tril_indices, aten.triu_indices)

# --- fresh tensors ----------------------------------------------------------------------------------------------------
_every(aten.arange, aten.eye, aten.scalar_tensor, aten.full, aten.full_like, aten.new_full)
_every(aten.zeros, aten.zeros_like, aten.new_zeros, aten.ones, aten.ones_like, aten.new_ones)
_every(aten.empty, aten.empty_like, aten.empty_strided, aten.empty_permuted, aten.new_empty, aten.new_empty_strided)
_every(aten.hann_window, aten.hamming_window)
rules.flat(aten.linspace.default, aten.logspace.default, aten.fill.Scalar, aten.where.Scalar)

# --- random draws: frozen by capture, and no function of their arguments ----------------------------------------------
_every(aten.rand, aten.randn, aten.randint, aten.randperm, aten.rand_like, aten.randn_like, aten.randint_like)
_every(aten.bernoulli, aten.multinomial, aten.normal, aten.poisson)

# --- steps: derivative 0 wherever it exists ---------------------------------------------------------------------------
_every(aten.sign, aten.sgn, aten.floor, aten.ceil, aten.round, aten.trunc, aten.fix, aten.floor_divide, aten.heaviside)

# --- assertions -------------------------------------------------------------------------------------------------------
_every(aten._assert_async, aten._assert_scalar, aten._assert_tensor_metadata)
_every(aten.sym_constrain_range, aten.sym_constrain_range_for_size)
