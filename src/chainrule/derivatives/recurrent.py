"""Recurrent networks: LSTM, GRU and the plain RNN, by back-propagation through time (Werbos 1990).

The rule runs forward again, keeps what each step needs, and goes back from the last step to the first. A step hands
dL/dh = dL/dh' direct + (dL/da_h) W_hh to the one before it; then, over all steps at once, dL/dx = (dL/da_x) W_ih,
dL/dW_ih = Σ (dL/da_x)ᵀ x and dL/dW_hh = Σ (dL/da_h)ᵀ h. What a step does is the cell's business (`recurrent_cell`).
Shapes: T steps, B batch, I entries of the input, H of the state, A = 1, 3 or 4 times H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.derivatives.recurrent_cell import (
    State,
    Weights,
    absolute,
    gru_back,
    gru_step,
    lstm_back,
    lstm_step,
    relu_back,
    relu_step,
    tanh_back,
    tanh_step,
)
from chainrule.derivatives.rule import Rules
from chainrule.errors import MissingRuleError

aten = torch.ops.aten
rules = Rules()


# --- one layer, in one direction --------------------------------------------------------------------------------------


def run_layer(x_TBI: Tensor, state: State, weights: Weights, step: Any) -> tuple[Tensor, State, Any]:
    """h' of all steps, the last state, and what backward needs: (h before each step, kept by each step)."""
    w_ih, w_hh, b_ih, b_hh = weights
    a_TBA = F.linear(x_TBI, w_ih, b_ih)
    before, kept, out = [], [], []
    for a_x in a_TBA:
        before.append(state[0])
        state, needs = step(a_x, F.linear(state[0], w_hh, b_hh), state)
        kept.append(needs)
        out.append(state[0])
    return torch.stack(out), state, (torch.stack(before), kept)


def back_layer(
    g_TBH: Tensor, d: State, x_TBI: Tensor, weights: Weights, trace: Any, back: Any
) -> tuple[Tensor, State, list[Tensor]]:
    """dL/dx, dL/d(first state) and the gradients of the weights; d is dL/d(last state)."""
    w_ih, w_hh, b_ih, _ = weights
    before_TBH, kept = trace
    to_x, to_h = [], []
    for g, needs in zip(reversed(g_TBH.unbind()), reversed(kept), strict=True):
        da_x, da_h, direct = back((d[0] + g, *d[1:]), needs)
        d = (direct[0] + da_h @ w_hh, *direct[1:])
        to_x.append(da_x)
        to_h.append(da_h)
    dx_TBA, dh_TBA = torch.stack(to_x[::-1]), torch.stack(to_h[::-1])
    return dx_TBA @ w_ih, d, weight_gradients(dx_TBA, dh_TBA, x_TBI, before_TBH, b_ih)


def weight_gradients(dx_TBA: Tensor, dh_TBA: Tensor, x_TBI: Tensor, h_TBH: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Σ over steps and batch of (dL/da_x)ᵀ x, (dL/da_h)ᵀ h and, with biases, of dL/da_x and dL/da_h themselves."""
    dx, dh = dx_TBA.flatten(0, 1), dh_TBA.flatten(0, 1)
    gradients = [dx.mT @ x_TBI.flatten(0, 1), dh.mT @ h_TBH.flatten(0, 1)]
    return gradients if bias is None else [*gradients, dx.sum(0), dh.sum(0)]


# --- layers and directions --------------------------------------------------------------------------------------------


def per_direction(params: Any, has_biases: bool) -> list[Weights]:
    """The weights of each layer and direction."""
    size = 4 if has_biases else 2
    found = [params[k : k + size] for k in range(0, len(params), size)]
    return [(one[0], one[1], *(one[2:] if has_biases else (None, None))) for one in found]


def run_network(x_TBI: Tensor, first: State, weights: list[Weights], step: Any, bidirectional: bool) -> Any:
    """(input, trace) of every layer and direction, the output of the last layer, and the last states."""
    directions, runs, last = 2 if bidirectional else 1, [], []
    for k in range(0, len(weights), directions):
        outputs = []
        for way in range(directions):
            x = x_TBI.flip(0) if way else x_TBI
            out, state, trace = run_layer(x, tuple(part[k + way] for part in first), weights[k + way], step)
            outputs.append(out.flip(0) if way else out)
            runs.append((x, trace))
            last.append(state)
        x_TBI = torch.cat(outputs, -1)
    return runs, x_TBI, [torch.stack(part) for part in zip(*last, strict=True)]


def back_network(
    g_TBH: Tensor,
    d: Sequence[Tensor],
    weights: list[Weights],
    runs: Any,
    back: Any,
    bidirectional: bool,
    layer: Any = back_layer,
) -> Any:
    """dL/dx, dL/d(first states), gradients of all weights; d holds dL/d(last states)."""
    directions, states, gradients = 2 if bidirectional else 1, [], []
    for k in reversed(range(0, len(weights), directions)):
        dx_TBI = torch.zeros_like(runs[k][0])
        for way in reversed(range(directions)):
            g = g_TBH.chunk(directions, -1)[way]
            x, trace = runs[k + way]
            state = tuple(part[k + way] for part in d)
            dx, state, found = layer(g.flip(0) if way else g, state, x, weights[k + way], trace, back)
            dx_TBI = dx_TBI + (dx.flip(0) if way else dx)
            states.append(state)
            gradients.append(found)
        g_TBH = dx_TBI
    return (
        g_TBH,
        [torch.stack(part) for part in zip(*states[::-1], strict=True)],
        [w for one in gradients[::-1] for w in one],
    )


def through_network(
    g: Any,
    input: Tensor,
    first: State,
    params: Any,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    step: Any,
    back: Any,
) -> Any:
    """Forward again, then backward: dL/dinput, dL/d(first states), dL/dparams."""
    x_TBI, g_TBH = (t.transpose(0, 1) if batch_first else t for t in (input, g[0]))
    weights = per_direction(params, has_biases)
    runs, _, _ = run_network(x_TBI, first, weights, step, bidirectional)
    dx_TBI, states, gradients = back_network(g_TBH, g[1:], weights, runs, back, bidirectional)
    return dx_TBI.transpose(0, 1) if batch_first else dx_TBI, states, gradients


def refuse_hidden(
    params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool, bidirectional: bool
) -> None:
    """Raise MissingRuleError for what no rule can see, or for which there is none."""
    if dropout and train and num_layers > 1:
        raise MissingRuleError(
            f"a recurrent op with dropout = {dropout} between its {num_layers} layers draws the masks inside, where no "
            "rule can see them. Set its dropout to 0, or use eval mode, or stack single layers with nn.Dropout between."
        )
    directions = num_layers * (2 if bidirectional else 1)
    if len(params) != directions * (4 if has_biases else 2):
        raise MissingRuleError(
            f"a recurrent op with {len(params)} weights for {directions} layers and directions: an LSTM with proj_size "
            "has no derivative rule. Set proj_size to 0, or put a Linear behind the LSTM."
        )


def _bound_layer(g_TBH: Tensor, d: State, x_TBI: Tensor, weights: Weights, trace: Any, back: Any) -> Any:
    """As `back_layer` with every sign made +, but only within a step: what arrives at a step is the true dL/dh.

    Made + along all the steps, the bound would grow like (Σ |W_hh|)^T, while the rounding of a step travels to the earlier
    ones as the gradient itself does.
    """
    w_ih, w_hh, b_ih, _ = absolute(weights)
    before_TBH, kept = trace
    size, to_x, to_h = absolute(d), [], []
    for g, needs in zip(reversed(g_TBH.unbind()), reversed(kept), strict=True):
        size_x, size_h, _ = back((size[0] + g.abs(), *size[1:]), absolute(needs))
        _, da_h, direct = back((d[0] + g, *d[1:]), needs)
        d = (direct[0] + da_h @ weights[1], *direct[1:])
        size = (direct[0].abs() + da_h.abs() @ w_hh, *absolute(direct[1:]))
        to_x.append(size_x)
        to_h.append(size_h)
    dx_TBA, dh_TBA = torch.stack(to_x[::-1]), torch.stack(to_h[::-1])
    return dx_TBA @ w_ih, size, weight_gradients(dx_TBA, dh_TBA, x_TBI.abs(), before_TBH.abs(), b_ih)


def _network_bound(step: Any, back: Any) -> Callable[..., Mapping[str, Any]]:
    def bound(
        g: Any, y: Any, input: Tensor, hx: Any, params: Any, has_biases: bool, bidirectional: bool, batch_first: bool
    ) -> Mapping[str, Any]:
        weights, first = per_direction(params, has_biases), (hx,) if isinstance(hx, Tensor) else tuple(hx)
        x_TBI, g_TBH = (t.transpose(0, 1) if batch_first else t for t in (input, g[0]))
        runs, _, _ = run_network(x_TBI, first, weights, step, bidirectional)
        bounds = []

        def layer(*arguments: Any) -> Any:
            bounds.append(_bound_layer(*arguments))
            return back_layer(*arguments)

        back_network(g_TBH, g[1:], weights, runs, back, bidirectional, layer)
        bounds = bounds[::-1]  # as the layers and directions stand
        dx_TBI = bounds[0][0] + bounds[1][0].flip(0) if bidirectional else bounds[0][0]
        states = [torch.stack(part) for part in zip(*(state for _, state, _ in bounds), strict=True)]
        return {
            "input": dx_TBI.transpose(0, 1) if batch_first else dx_TBI,
            "hx": states[0] if isinstance(hx, Tensor) else states,
            "params": [part for _, _, parts in bounds for part in parts],
        }

    return bound


# --- the rules of the networks ----------------------------------------------------------------------------------------


@rules.vjp(aten.lstm.input, abs_bound=_network_bound(lstm_step, lstm_back))
def lstm(
    g: Any,
    y: Any,
    input: Tensor,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> dict[str, Any]:
    """c' = f c + i n,  h' = o tanh c'        dL/dc' += o (1 − tanh² c') dL/dh',  dL/dc = f dL/dc', back through time"""
    refuse_hidden(params, has_biases, num_layers, dropout, train, bidirectional)
    dx, states, weights = through_network(
        g, input, tuple(hx), params, has_biases, bidirectional, batch_first, lstm_step, lstm_back
    )
    return {"input": dx, "hx": states, "params": weights}


@rules.vjp(aten.gru.input, abs_bound=_network_bound(gru_step, gru_back))
def gru(
    g: Any,
    y: Any,
    input: Tensor,
    hx: Tensor,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> dict[str, Any]:
    """h' = (1 − z) n + z h        dL/dn = (1 − z) dL/dh',  dL/dz = (h − n) dL/dh', back through time"""
    refuse_hidden(params, has_biases, num_layers, dropout, train, bidirectional)
    dx, (dh,), weights = through_network(
        g, input, (hx,), params, has_biases, bidirectional, batch_first, gru_step, gru_back
    )
    return {"input": dx, "hx": dh, "params": weights}


@rules.vjp(aten.rnn_tanh.input, abs_bound=_network_bound(tanh_step, tanh_back))
def rnn_tanh(
    g: Any,
    y: Any,
    input: Tensor,
    hx: Tensor,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> dict[str, Any]:
    """h' = tanh a,  a = x W_ihᵀ + h W_hhᵀ + b            dL/da = (1 − h'²) dL/dh',  back through time"""
    refuse_hidden(params, has_biases, num_layers, dropout, train, bidirectional)
    dx, (dh,), weights = through_network(
        g, input, (hx,), params, has_biases, bidirectional, batch_first, tanh_step, tanh_back
    )
    return {"input": dx, "hx": dh, "params": weights}


def _rnn_relu_frozen(
    at: Mapping[str, Any],
    input: Tensor,
    hx: Tensor,
    params: Any,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Forward with the signs of all activations as at the base point."""

    def run(arguments: Mapping[str, Any], step: Any) -> Any:
        x_TBI = arguments["input"].transpose(0, 1) if batch_first else arguments["input"]
        weights = per_direction(arguments["params"], has_biases)
        return run_network(x_TBI, (arguments["hx"],), weights, step, bidirectional)

    base, _, _ = run(at, relu_step)
    signs = iter([kept[0] > 0 for _, (_, steps) in base for kept in steps])

    def held_step(a_x: Tensor, a_h: Tensor, state: State) -> tuple[State, State]:
        h = torch.where(next(signs), a_x + a_h, 0)
        return (h,), (h,)

    _, out, (last,) = run({"input": input, "hx": hx, "params": params}, held_step)
    return out.transpose(0, 1) if batch_first else out, last


@rules.vjp(aten.rnn_relu.input, abs_bound=_network_bound(relu_step, relu_back), frozen=_rnn_relu_frozen)
def rnn_relu(
    g: Any,
    y: Any,
    input: Tensor,
    hx: Tensor,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> dict[str, Any]:
    """h' = max(0, a),  a = x W_ihᵀ + h W_hhᵀ + b            dL/da = [h' > 0] dL/dh',  back through time"""
    refuse_hidden(params, has_biases, num_layers, dropout, train, bidirectional)
    dx, (dh,), weights = through_network(
        g, input, (hx,), params, has_biases, bidirectional, batch_first, relu_step, relu_back
    )
    return {"input": dx, "hx": dh, "params": weights}
