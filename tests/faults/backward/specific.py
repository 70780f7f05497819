"""Wrong backwards of one formula each: the mistakes that its derivation invites."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from faults.backward import formulas as f
from faults.backward.formula import Call, Gradients
from faults.backward.generic import put

# linear, position, scale --------------------------------------------------------------------------------------------


def bias_of_first_row(call: Call) -> Gradients:
    """The bias gradient is one row's, not the sum over all."""
    return put(call.right, 2, call.g[0].flatten(0, -2)[0])


def weight_of_first_half(call: Call) -> Gradients:
    """Only the last block of rows is accumulated into the weight's gradient."""
    g, x, w, b = *call.g, *call.saved
    rows = x.shape[0] // 2
    return put(call.right, 1, f.linear_backward(g[rows:], x[rows:], w, b)[1])


def weight_by_output(call: Call) -> Gradients:
    """The output stands where the input belongs in the weight's gradient (both as wide)."""
    g, x, w, b = *call.g, *call.saved
    return put(call.right, 1, f.linear_backward(g, f.linear_forward(x, w, b), w, b)[1])


def weight_not_transposed(call: Call) -> Gradients:
    """g @ wᵀ where g @ w belongs (a square weight)."""
    return put(call.right, 0, call.g[0] @ call.saved[1].mT)


def broadcast_not_summed(call: Call) -> Gradients:
    """The first example's gradient where the sum over the batch belongs."""
    return put(call.right, 1, call.g[0][0].clone())


def broadcast_averaged(call: Call) -> Gradients:
    return put(call.right, 1, call.g[0].mean(0))


def scale_summed_over_batch_only(call: Call) -> Gradients:
    """The sum over the batch is taken, that over the positions is not: the last position stays."""
    g, x, _ = *call.g, *call.saved
    return put(call.right, 1, (g * x).sum(0)[-1])


# layer norm ---------------------------------------------------------------------------------------------------------


def layer_norm_terms(call: Call, mean: float = 1.0, variance: float = 1.0) -> Gradients:
    """The input's gradient with the two coupling terms weighted (1, 1 is right)."""
    g, x, w, _ = *call.g, *call.saved
    n, r = f.normalised(x)
    s = g * w
    coupling = mean * s.mean(-1, keepdim=True) + variance * n * (s * n).mean(-1, keepdim=True)
    return put(call.right, 0, r * (s - coupling))


def without_mean_term(call: Call) -> Gradients:
    return layer_norm_terms(call, mean=0)


def without_variance_term(call: Call) -> Gradients:
    return layer_norm_terms(call, variance=0)


def mean_term_twice(call: Call) -> Gradients:
    return layer_norm_terms(call, mean=2)


def sums_for_means(call: Call) -> Gradients:
    """1/n is missing in both coupling terms."""
    return layer_norm_terms(call, mean=f.D_MODEL, variance=f.D_MODEL)


def unbiased_variance(call: Call) -> Gradients:
    """n - 1 where n belongs in the variance term."""
    return layer_norm_terms(call, variance=f.D_MODEL / (f.D_MODEL - 1))


def eps_of_another_layer(call: Call) -> Gradients:
    """eps is 1e-2 in backward, 1e-5 in forward."""
    return f.layer_norm_backward(*call.g, *call.saved, eps=1e-2)


def weight_by_raw_input(call: Call) -> Gradients:
    """The weight's gradient takes x where x̂ belongs."""
    g, x, *_ = *call.g, *call.saved
    return put(call.right, 1, (g * x).flatten(0, -2).sum(0))


# activations --------------------------------------------------------------------------------------------------------


def other_gelu(call: Call) -> Gradients:
    """The derivative of the tanh approximation; forward is exact."""
    x = call.saved[0]
    c = math.sqrt(2 / math.pi)
    t = torch.tanh(c * (x + 0.044715 * x**3))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return (call.g[0] * slope,)


def gelu_without_density_term(call: Call) -> Gradients:
    x = call.saved[0]
    return (call.g[0] * 0.5 * (1 + torch.erf(x / math.sqrt(2))),)


def saturated_for_large_input(call: Call) -> Gradients:
    """Slope one where |x| > 1: never met by a test on small numbers."""
    x = call.saved[0]
    return (torch.where(x.abs() > 1, call.g[0] * (x > 0), call.right[0]),)


def mask_of_wrong_sign(call: Call) -> Gradients:
    return (call.g[0] * (call.saved[0] < 0),)


def mask_not_strict(call: Call) -> Gradients:
    """y >= 0 where y > 0 belongs: true everywhere, for y is an output of relu."""
    return (call.g[0] * (f.relu_forward(call.saved[0]) >= 0),)


# softmax and attention ----------------------------------------------------------------------------------------------


def without_coupling(call: Call) -> Gradients:
    """y·g, without the sum over the row."""
    return (f.softmax_forward(call.saved[0]) * call.g[0],)


def coupling_over_wrong_axis(call: Call) -> Gradients:
    y, g = f.softmax_forward(call.saved[0]), call.g[0]
    return (y * (g - (g * y).sum(-2, keepdim=True)),)


def without_causal_mask(call: Call) -> Gradients:
    return f.attention_backward(*call.g, *call.saved, causal=False)


def without_scale(call: Call) -> Gradients:
    """1/√K is forgotten in backward."""
    return f.attention_backward(*call.g, *call.saved, scale=1.0)


def scale_of_full_width(call: Call) -> Gradients:
    """1/√D where 1/√K belongs."""
    return f.attention_backward(*call.g, *call.saved, scale=1 / math.sqrt(f.D_MODEL))


def query_and_key_exchanged(call: Call) -> Gradients:
    return call.right[1], call.right[0], call.right[2]


# embedding ----------------------------------------------------------------------------------------------------------


def repeats_not_accumulated(call: Call) -> Gradients:
    """Of several uses of a token only the last counts."""
    g, w, ids = *call.g, *call.saved
    dw = torch.zeros_like(w)
    for row, token in zip(g.flatten(0, -2), ids.flatten().tolist(), strict=True):
        dw[token] = row
    dw[f.PAD] = 0
    return dw, None


def padding_row_kept(call: Call) -> Gradients:
    g, w, ids = *call.g, *call.saved
    return torch.zeros_like(w).index_add_(0, ids.flatten(), g.flatten(0, -2)), None


def next_row(call: Call) -> Gradients:
    """Rows are counted from one in backward."""
    assert call.right[0] is not None
    return call.right[0].roll(1, dims=0), None


# gate, split, shift, dropout ----------------------------------------------------------------------------------------


def inputs_exchanged(call: Call) -> Gradients:
    g, a, b = *call.g, *call.saved
    return g * a, g * b


def outputs_exchanged(call: Call) -> Gradients:
    return (torch.cat((call.g[1], call.g[0]), dim=-1),)


def shifted_forwards(call: Call) -> Gradients:
    """The gradient moves along time the way that the values moved, not back."""
    g = call.g[0]
    return (g + f.CARRY * F.pad(g[:, :-1], (0, 0, 1, 0)),)


def keep_scale_forgotten(call: Call) -> Gradients:
    """g·mask, without 1/(1 - p)."""
    return (call.g[0] * call.saved[1],)


def scaled_by_p(call: Call) -> Gradients:
    return (call.g[0] * call.saved[1] * f.P_DROP,)


def mask_forgotten(call: Call) -> Gradients:
    return (call.g[0] / (1 - f.P_DROP),)


def mask_drawn_again(call: Call) -> Gradients:
    """A fresh mask in backward (from a seed of its own)."""
    x: Tensor = call.saved[0]
    fresh = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) > f.P_DROP
    return f.dropout_backward(*call.g, x, fresh.to(x.dtype))


# cross entropy ------------------------------------------------------------------------------------------------------


def without_minus_one(call: Call) -> Gradients:
    """The softmax alone, without -1 at the target."""
    return f.cross_entropy_backward(*call.g, *call.saved, hit=0)


def sum_for_mean(call: Call) -> Gradients:
    """1/n is missing."""
    kept = int((call.saved[1] != f.PAD).sum())
    assert call.right[0] is not None
    return call.right[0] * kept, None


def mean_over_all(call: Call) -> Gradients:
    """Divided by all targets, the ignored ones included."""
    targets = call.saved[1]
    assert call.right[0] is not None
    return call.right[0] * int((targets != f.PAD).sum()) / targets.numel(), None


def smoothing_forgotten(call: Call) -> Gradients:
    return f.cross_entropy_backward(*call.g, *call.saved, smoothing=0)


def z_term_dropped(call: Call) -> Gradients:
    return f.cross_entropy_backward(*call.g, *call.saved, z_weight=0)


def ignored_rows_kept(call: Call) -> Gradients:
    g, logits, targets = *call.g, *call.saved
    each = f.cross_entropy_backward(g, logits, torch.where(targets == f.PAD, 1, targets))[0]
    assert each is not None
    return each * targets.numel() / int((targets != f.PAD).sum()), None
