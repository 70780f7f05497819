"""The cells of recurrent networks: one step of an RNN, an LSTM, a GRU.

A cell turns a_x = x W_ihᵀ + b_ih, a_h = h W_hhᵀ + b_hh and the state into the next state:

    RNN    h' = φ(a_x + a_h)                                              φ = tanh or max(0, ·)
    LSTM   i, f, o = σ,  n = tanh of the parts of a_x + a_h               c' = f c + i n,   h' = o tanh c'
    GRU    r, z = σ of the parts of a_x + a_h,  n = tanh(a_xn + r a_hn)   h' = (1 − z) n + z h

and with the derivatives of these at hand  dL/dx = (dL/da_x) W_ih,  dL/dW_ih = (dL/da_x)ᵀ x,  the same for h and W_hh.
Hochreiter & Schmidhuber 1997 and Gers et al. 2000 (LSTM); Cho et al. 2014 (GRU; r acts on a_hn, as in PyTorch).
Shapes: B batch, I entries of the input, H of the state, A = 1, 3 or 4 times H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()

State: TypeAlias = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM
Weights: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # W_ih, W_hh, b_ih, b_hh


# --- one step forward, with what backward needs; and one back, to dL/da_x, dL/da_h and dL/dstate ----------------------


def tanh_step(a_x: Tensor, a_h: Tensor, state: State) -> tuple[State, State]:
    """h' = tanh(a_x + a_h)"""
    h = torch.tanh(a_x + a_h)
    return (h,), (h,)


def tanh_back(d: State, kept: State) -> tuple[Tensor, Tensor, State]:
    """dL/da = dL/dh' (1 − h'²)"""
    da = d[0] * (1 - kept[0].square())
    return da, da, (torch.zeros_like(d[0]),)


def relu_step(a_x: Tensor, a_h: Tensor, state: State) -> tuple[State, State]:
    """h' = max(0, a_x + a_h)"""
    h = torch.relu(a_x + a_h)
    return (h,), (h,)


def relu_back(d: State, kept: State) -> tuple[Tensor, Tensor, State]:
    """dL/da = dL/dh' [h' > 0]"""
    da = d[0] * (kept[0] > 0)
    return da, da, (torch.zeros_like(d[0]),)


def lstm_step(a_x: Tensor, a_h: Tensor, state: State) -> tuple[State, State]:
    """c' = f c + i n,  h' = o tanh c'"""
    i, f, n, o = (a_x + a_h).chunk(4, -1)
    i, f, n, o = i.sigmoid(), f.sigmoid(), n.tanh(), o.sigmoid()
    c = f * state[1] + i * n
    return (o * c.tanh(), c), (i, f, n, o, c.tanh(), state[1])


def lstm_back(d: State, kept: State) -> tuple[Tensor, Tensor, State]:
    """dL/dc' gains dL/dh' o (1 − tanh² c');  dL/dc = dL/dc' f;  σ' = σ (1 − σ), tanh' = 1 − tanh²"""
    i, f, n, o, tanh_c, c = kept
    dc = d[1] + d[0] * o * (1 - tanh_c.square())
    parts = (dc * n * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - n.square()), d[0] * tanh_c * o * (1 - o))
    da = torch.cat(parts, -1)
    return da, da, (torch.zeros_like(d[0]), dc * f)


def gru_step(a_x: Tensor, a_h: Tensor, state: State) -> tuple[State, State]:
    """n = tanh(a_xn + r a_hn),  h' = (1 − z) n + z h"""
    (x_r, x_z, x_n), (h_r, h_z, h_n), h = a_x.chunk(3, -1), a_h.chunk(3, -1), state[0]
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = torch.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (r, z, -n, h_n, h)


def gru_back(d: State, kept: State) -> tuple[Tensor, Tensor, State]:
    """dL/da_n = dL/dh' (1 − z)(1 − n²);  dL/da_z = dL/dh' (h − n) z (1 − z);  dL/da_r = dL/da_n a_hn r (1 − r)"""
    r, z, minus_n, a_hn, h = kept
    da_n = d[0] * (1 - z) * (1 - minus_n.square())
    da_z, da_r = d[0] * (h + minus_n) * z * (1 - z), da_n * a_hn * r * (1 - r)
    return torch.cat((da_r, da_z, da_n), -1), torch.cat((da_r, da_z, da_n * r), -1), (d[0] * z,)


def absolute(value: Any) -> Any:
    """|·| of every tensor in nested lists and tuples."""
    if isinstance(value, Tensor):
        return value.abs()
    return type(value)(absolute(part) for part in value) if isinstance(value, (list, tuple)) else value


# --- the rules --------------------------------------------------------------------------------------------------------


def through_cell(d: State, x: Tensor, state: State, weights: Weights, step: Any, back: Any) -> tuple[Any, State]:
    """One step forward and back: the gradients of x and the weights by name, and dL/dstate."""
    w_ih, w_hh, b_ih, b_hh = weights
    _, kept = step(F.linear(x, w_ih, b_ih), F.linear(state[0], w_hh, b_hh), state)
    return back_cell(d, x, state[0], weights, kept, back)


def back_cell(d: State, x: Tensor, h: Tensor, weights: Weights, kept: State, back: Any) -> tuple[Any, State]:
    """Backward of one step, given what forward kept."""
    w_ih, w_hh, b_ih, b_hh = weights
    da_x, da_h, direct = back(d, kept)
    found = {"input": da_x @ w_ih, "w_ih": da_x.mT @ x, "w_hh": da_h.mT @ h}
    found |= {} if b_ih is None else {"b_ih": da_x.sum(0)}
    found |= {} if b_hh is None else {"b_hh": da_h.sum(0)}
    return found, (direct[0] + da_h @ w_hh, *direct[1:])


def _cell_bound(step: Any, back: Any) -> Callable[..., Mapping[str, Any]]:
    def bound(g: Any, y: Any, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Any:
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        d = tuple(part.abs() for part in (g if isinstance(g, tuple) else (g,)))
        _, kept = step(F.linear(input, w_ih, b_ih), F.linear(state[0], w_hh, b_hh), state)
        sizes = absolute((w_ih, w_hh, b_ih, b_hh))
        found, states = back_cell(d, input.abs(), state[0].abs(), sizes, absolute(kept), back)
        return {**found, "hx": states[0] if isinstance(hx, Tensor) else list(states)}

    return bound


@rules.vjp(aten.lstm_cell.default, abs_bound=_cell_bound(lstm_step, lstm_back))
def lstm_cell(
    g: Any, y: Any, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> dict[str, Any]:
    """c' = f c + i n,  h' = o tanh c'        dL/dc' += o (1 − tanh² c') dL/dh',  dL/dc = f dL/dc'"""
    found, states = through_cell(g, input, tuple(hx), (w_ih, w_hh, b_ih, b_hh), lstm_step, lstm_back)
    return {**found, "hx": list(states)}


@rules.vjp(aten.gru_cell.default, abs_bound=_cell_bound(gru_step, gru_back))
def gru_cell(
    g: Tensor, y: Tensor, input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> dict[str, Any]:
    """h' = (1 − z) n + z h        dL/dn = (1 − z) dL/dh',  dL/dz = (h − n) dL/dh',  dL/dh += z dL/dh'"""
    found, (dh,) = through_cell((g,), input, (hx,), (w_ih, w_hh, b_ih, b_hh), gru_step, gru_back)
    return {**found, "hx": dh}


@rules.vjp(aten.rnn_tanh_cell.default, abs_bound=_cell_bound(tanh_step, tanh_back))
def rnn_tanh_cell(
    g: Tensor, y: Tensor, input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> dict[str, Any]:
    """h' = tanh a,  a = x W_ihᵀ + h W_hhᵀ + b        dL/da = (1 − h'²) dL/dh',  dL/dx = dL/da W_ih"""
    found, (dh,) = through_cell((g,), input, (hx,), (w_ih, w_hh, b_ih, b_hh), tanh_step, tanh_back)
    return {**found, "hx": dh}


def _relu_cell_frozen(
    at: Mapping[str, Any], input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> Tensor:
    return torch.where(at["y"] > 0, F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh), 0)


@rules.vjp(aten.rnn_relu_cell.default, abs_bound=_cell_bound(relu_step, relu_back), frozen=_relu_cell_frozen)
def rnn_relu_cell(
    g: Tensor, y: Tensor, input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> dict[str, Any]:
    """h' = max(0, a),  a = x W_ihᵀ + h W_hhᵀ + b        dL/da = [h' > 0] dL/dh',  dL/dx = dL/da W_ih"""
    found, (dh,) = through_cell((g,), input, (hx,), (w_ih, w_hh, b_ih, b_hh), relu_step, relu_back)
    return {**found, "hx": dh}
