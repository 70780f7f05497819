"""The kernel's arithmetic: dot products four at a time, sums of rows, the exact logistic loss and its derivative.

Matrices lie flat in one-dimensional float32 arrays; a row is named by its offset. `width` is D rounded up to a multiple
of 16 (one AVX-512 register, one cache line); the entries beyond D are zero and stay zero. After inlining, `width` is a
constant, so that LLVM unrolls and vectorises these loops; `noalias` is not needed, as it checks overlaps itself.

The exponential is a polynomial: a call to the C library would keep the loop over outputs from being vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 16
# Inlined where it is called; sums may be reordered; a division by zero is inf, not an exception, whose test would keep the
# loop around it from being vectorised.
inlined = njit(forceinline=True, fastmath=True, error_model="numpy")
_LOG2_E = np.float32(1.4426950408889634)
_LN2 = np.float32(0.6931471805599453)
_LARGEST = np.float32(87.0)  # exp(-87) is the least normal float32; beyond it the logistic function is 0 or 1
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)


def padded(dimensions: int) -> int:
    """Floats of a row in memory: D rounded up to whole registers."""
    return -(-dimensions // LANES) * LANES


def zeros(count: int) -> NDArray[np.float32]:
    """Memory for rows, set to zero, that begins at a cache line.

    Elsewhere every register is read and written across two lines: a run takes a quarter more time.
    """
    memory = np.zeros(count + LANES, np.float32)
    begin = -memory.ctypes.data % (LANES * memory.itemsize) // memory.itemsize
    return memory[begin : begin + count]


@intrinsic
def _float_of_bits(_context: Any, _bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@inlined
def exp_minus(a):  # type: ignore[no-untyped-def]
    """exp(-a) for 0 <= a, within 3e-7 of it relatively for a < 10: 2^-k exp(-r) with |r| <= ln(2) / 2."""
    a = min(a, _LARGEST)
    k = np.int32(a * _LOG2_E + _HALF)
    r = np.float32(k) * _LN2 - a
    power = np.float32(1 / 720)
    power = power * r + np.float32(1 / 120)
    power = power * r + np.float32(1 / 24)
    power = power * r + np.float32(1 / 6)
    power = power * r + _HALF
    power = power * r + _ONE
    power = power * r + _ONE
    return power * _float_of_bits(  # type: ignore[call-arg]
        np.int32((np.int32(127) - k) << np.int32(23))
    )


@inlined
def log1p_unit(e):  # type: ignore[no-untyped-def]
    """log(1 + e) for 0 <= e <= 1: 2 artanh(s), s = e / (2 + e) <= 1/3, by its series."""
    s = e / (_TWO + e)
    q = s * s
    series = np.float32(1 / 15)
    series = series * q + np.float32(1 / 13)
    series = series * q + np.float32(1 / 11)
    series = series * q + np.float32(1 / 9)
    series = series * q + np.float32(1 / 7)
    series = series * q + np.float32(1 / 5)
    series = series * q + np.float32(1 / 3)
    series = series * q + _ONE
    return _TWO * s * series


@inlined
def logistic(s_N, label_N, weight_N, n, rate):  # type: ignore[no-untyped-def]
    """Return Σ weight (softplus(s) - label s); leave in `s_N` the steps -rate weight (σ(s) - label). n: multiple of LANES.

    The loss of a logistic regression, stable for every s: softplus(s) = max(s, 0) + log(1 + exp(-|s|)). The inner loop's
    length is constant, so that all of it is vectorised: what is left over one by one took a tenth of CBOW's time.
    """
    loss = np.float32(0)
    for begin in range(0, n, LANES):
        for lane in range(LANES):
            j = np.uint64(begin + lane)
            s = s_N[j]
            e = exp_minus(abs(s))
            share = _ONE / (_ONE + e)
            sigma = share if s >= 0 else _ONE - share
            loss += weight_N[j] * (max(s, np.float32(0)) + log1p_unit(e) - label_N[j] * s)
            s_N[j] = -rate * weight_N[j] * (sigma - label_N[j])
    return loss


@inlined
def dots(x, row, o, place_N, n, s_N, width):  # type: ignore[no-untyped-def]
    """s_N[j] = x[row] · o[place_N[j]] for n places, a multiple of 4: each part of the row is read once for four."""
    row, width = np.uint64(row), np.uint64(width)
    for j in range(0, n, 4):
        p0, p1 = np.uint64(place_N[j]), np.uint64(place_N[j + 1])
        p2, p3 = np.uint64(place_N[j + 2]), np.uint64(place_N[j + 3])
        s0 = s1 = s2 = s3 = np.float32(0)
        for d in range(width):
            value = x[row + d]
            s0 += value * o[p0 + d]
            s1 += value * o[p1 + d]
            s2 += value * o[p2 + d]
            s3 += value * o[p3 + d]
        s_N[j], s_N[j + 1], s_N[j + 2], s_N[j + 3] = s0, s1, s2, s3


@inlined
def add_combination(dx, row, o, place_N, n, g_N, width):  # type: ignore[no-untyped-def]
    """dx[row] += Σ_j g_N[j] o[place_N[j]], four at a time."""
    row, width = np.uint64(row), np.uint64(width)
    for j in range(0, n, 4):
        p0, p1 = np.uint64(place_N[j]), np.uint64(place_N[j + 1])
        p2, p3 = np.uint64(place_N[j + 2]), np.uint64(place_N[j + 3])
        g0, g1, g2, g3 = g_N[j], g_N[j + 1], g_N[j + 2], g_N[j + 3]
        for d in range(width):
            dx[row + d] += g0 * o[p0 + d] + g1 * o[p1 + d] + g2 * o[p2 + d] + g3 * o[p3 + d]


@inlined
def add_multiples(do, place_N, n, g_N, x, row, width):  # type: ignore[no-untyped-def]
    """do[place_N[j]] += g_N[j] x[row] for every j."""
    for j in range(n):
        add_multiple(do, place_N[j], g_N[j], x, row, width)


@inlined
def copy_row(target, place, source, start, width):  # type: ignore[no-untyped-def]
    """target[place] = source[start]."""
    place, start, width = np.uint64(place), np.uint64(start), np.uint64(width)
    for d in range(width):
        target[place + d] = source[start + d]


@inlined
def add_multiple(target, place, factor, source, start, width):  # type: ignore[no-untyped-def]
    """target[place] += factor source[start]."""
    place, start, width = np.uint64(place), np.uint64(start), np.uint64(width)
    for d in range(width):
        target[place + d] += factor * source[start + d]


@inlined
def add_row(target, place, source, start, width):  # type: ignore[no-untyped-def]
    """target[place] += source[start]."""
    add_multiple(target, place, _ONE, source, start, width)


@inlined
def clear(target, start, count):  # type: ignore[no-untyped-def]
    """Set `count` entries to zero."""
    start, count = np.uint64(start), np.uint64(count)
    for d in range(count):
        target[start + d] = 0
