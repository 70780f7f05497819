"""Faults of backward rules that shipped in fused kernels, each rebuilt as a custom autograd.Function in a small model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import Setup
from faults.case import Case

Kernel = type[torch.autograd.Function]


class Fused(nn.Module):
    """Two linear layers with a kernel between them; `broken` is handed on to the kernel."""

    def __init__(self, kernel: Kernel, width: int = 12, *, broken: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, width), nn.LazyLinear(3)
        self.kernel, self.broken = kernel, broken

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.kernel.apply(self.first(x), self.broken))


class Network(nn.Module):
    """The kernel buried one module deep."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.embed, self.fused = nn.Linear(4, 5), fused

    def forward(self, x: Tensor) -> Tensor:
        return self.fused(torch.tanh(self.embed(x)))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


def setup(kernel: Kernel, broken: bool, shape: tuple[int, ...] = (6,), scale: float = 1.0) -> Setup:
    model = Network(Fused(kernel, broken=broken))
    x = scale * torch.randn(*shape, 4)
    model(x)  # a lazy layer learns its shape
    return Setup(model, loss, [(x, torch.randint(3, shape))], torch.optim.Adam(model.parameters()))


def of(kernel: Kernel, shape: tuple[int, ...] = (6,), scale: float = 1.0) -> Callable[[bool], Setup]:
    return lambda broken: setup(kernel, broken, shape, scale)


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up; broken, the two gradients lie in each other's place."""

    @staticmethod
    def forward(ctx, both, broken):
        gate, up = both.chunk(2, -1)
        ctx.save_for_backward(gate, up)
        ctx.broken = broken
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx, g):
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(gate)
        d_gate, d_up = g * up * s * (1 + gate * (1 - s)), g * gate * s
        return torch.cat((d_up, d_gate) if ctx.broken else (d_gate, d_up), -1), None


class Softplus(torch.autograd.Function):
    """log(1 + exp(x)), linear above the threshold; broken, the backward does not know of the threshold's other side."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.save_for_backward(x)
        ctx.broken = broken
        return torch.where(x > 0.1, x, F.softplus(x))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        slope = torch.sigmoid(x)
        return g * (slope if ctx.broken else torch.where(x > 0.1, torch.ones_like(x), slope)), None


class NormOfRows(torch.autograd.Function):
    """Layer norm without weights; broken, the backward takes the first axis for all rows there are."""

    @staticmethod
    def forward(ctx, x, broken):
        centred = x - x.mean(-1, keepdim=True)
        rstd = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        y = centred * rstd
        ctx.save_for_backward(y, rstd)
        ctx.broken = broken
        return y

    @staticmethod
    def backward(ctx, g):
        y, rstd = ctx.saved_tensors
        d = rstd * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True))
        if ctx.broken and y.dim() > 2:
            rows = y.shape[0]
            flat = torch.zeros_like(d).flatten(0, -2)
            flat[:rows] = d.flatten(0, -2)[:rows]
            d = flat.view_as(d)
        return d, None


class DroppedSoftmax(torch.autograd.Function):
    """Softmax and dropout in one; broken, the backward uses the softmax after dropout."""

    @staticmethod
    def forward(ctx, x, broken):
        p = x.softmax(-1)
        mask = (torch.arange(x.numel()).view_as(x) % 5 != 0) / 0.8
        ctx.save_for_backward(p, mask)
        ctx.broken = broken
        return p * mask

    @staticmethod
    def backward(ctx, g):
        p, mask = ctx.saved_tensors
        if ctx.broken:
            p, g = p * mask, g
        else:
            g = g * mask
        return p * (g - (g * p).sum(-1, keepdim=True)), None


class DropoutScale(torch.autograd.Function):
    """Dropout with a fixed mask; broken, the backward scales by p instead of 1 / (1 - p)."""

    @staticmethod
    def forward(ctx, x, broken):
        mask = torch.arange(x.numel()).view_as(x) % 3 != 0
        ctx.save_for_backward(mask)
        ctx.scale = 1 / 3 if broken else 1.5
        return x * mask * 1.5

    @staticmethod
    def backward(ctx, g):
        (mask,) = ctx.saved_tensors
        return g * mask * ctx.scale, None


class GatedLinearAttention(torch.autograd.Function):
    """Causal linear attention of x with itself; broken, one path of the gradient is left out."""

    @staticmethod
    def forward(ctx, x, broken):
        scores = (x @ x.mT).tril()
        ctx.save_for_backward(x, scores)
        ctx.broken = broken
        return scores @ x / x.shape[-2]

    @staticmethod
    def backward(ctx, g):
        x, scores = ctx.saved_tensors
        g = g / x.shape[-2]
        d_scores = (g @ x.mT).tril()
        d_query_and_key = d_scores @ x + d_scores.mT @ x
        return d_query_and_key if ctx.broken else d_query_and_key + scores.mT @ g, None


class Scaled(torch.autograd.Function):
    """x · s with s of one number a row; broken, the backward does not sum over what was broadcast."""

    @staticmethod
    def forward(ctx, x, broken):
        s = x.mean(-1, keepdim=True)
        ctx.save_for_backward(x, s)
        ctx.broken = broken
        return x * s

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        through = (g * x) if ctx.broken else (g * x).sum(-1, keepdim=True)
        return g * s + through / x.shape[-1] * torch.ones_like(x), None


class Scatter(torch.autograd.Function):
    """Writes zeros into one slice; broken, the whole gradient becomes zero."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.broken = broken
        y = x.clone()
        y[..., :2] = 0
        return y

    @staticmethod
    def backward(ctx, g):
        d = torch.zeros_like(g) if ctx.broken else g.clone()
        d[..., :2] = 0
        return d, None


class PoolOfMask(torch.autograd.Function):
    """Max over pairs; broken, the backward sends the gradient to the first of each pair."""

    @staticmethod
    def forward(ctx, x, broken):
        values, index = x.unflatten(-1, (-1, 2)).max(-1)
        ctx.save_for_backward(torch.zeros_like(index) if broken else index)
        return values

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        pairs = torch.zeros(*g.shape, 2, dtype=g.dtype).scatter(-1, index.unsqueeze(-1), g.unsqueeze(-1))
        return pairs.flatten(-2), None


class TwoInPlaceAdds(torch.autograd.Function):
    """y = x + sin x + cos x by two in-place additions; broken, one of them is lost in backward."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.save_for_backward(x)
        ctx.broken = broken
        y = x.clone()
        y += x.sin()
        y += x.cos()
        return y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        slope = 1 + x.cos() - (0 if ctx.broken else x.sin())
        return g * slope, None


class Wavelet(torch.autograd.Function):
    """A filter over the features; broken, the backward uses the filter where its mirror image belongs."""

    TAPS = torch.tensor([0.48, 0.84, 0.22, -0.13])

    @staticmethod
    def forward(ctx, x, broken):
        ctx.broken = broken
        taps = Wavelet.TAPS.to(x.dtype).view(1, 1, -1)
        return F.conv1d(x.unsqueeze(-2), taps, padding=3).squeeze(-2)

    @staticmethod
    def backward(ctx, g):
        taps = Wavelet.TAPS.to(g.dtype)
        taps = (taps if ctx.broken else taps.flip(0)).view(1, 1, -1)
        return F.conv1d(g.unsqueeze(-2), taps).squeeze(-2), None


class MeanOfContext(torch.autograd.Function):
    """CBOW's mean over the context; broken, every word gets the undivided error."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.words = x.shape[-2]
        ctx.share = 1.0 if broken else 1 / x.shape[-2]
        return x.mean(-2, keepdim=True).expand_as(x).clone()

    @staticmethod
    def backward(ctx, g):
        return (g.sum(-2, keepdim=True) * ctx.share).expand_as(g).clone(), None


class HandWrittenTanh(torch.autograd.Function):
    """tanh by hand; broken, 1 - y is taken for 1 - y²."""

    @staticmethod
    def forward(ctx, x, broken):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        ctx.broken = broken
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - (y if ctx.broken else y * y)), None


class SoftTargets(torch.autograd.Function):
    """-Σ p log softmax x with targets that need not sum to 1; broken, the backward assumes that they do."""

    @staticmethod
    def forward(ctx, x, p, broken):
        ctx.save_for_backward(x.softmax(-1), p)
        ctx.broken = broken
        return -(p * x.log_softmax(-1)).sum(-1).mean()

    @staticmethod
    def backward(ctx, g):
        q, p = ctx.saved_tensors
        mass = 1 if ctx.broken else p.sum(-1, keepdim=True)
        return g * (q * mass - p) / p[..., 0].numel(), None, None


def soft_targets(broken: bool) -> Setup:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batch = (torch.randn(6, 4), torch.rand(6, 3))

    def distilled(model, batch):
        return SoftTargets.apply(model(batch[0]), batch[1], broken)

    return Setup(model, distilled, [batch], torch.optim.Adam(model.parameters()))


def _case(id: str, source: str, fault: str, build: Callable[[bool], Setup], where: str) -> Case:
    return Case(id, source, fault, "gradient-mismatch", build, where)


CASES = (
    _case("G01", "unsloth#3314", "SwiGLU: gradients of gate and up swapped", of(SwiGLU), "fused.SwiGLU"),
    _case("G06", "tt-metal#6598", "softplus: threshold ignored in backward", of(Softplus), "fused.Softplus"),
    _case("G11", "FlagGems#5392", "layer norm assumes 2-D input", of(NormOfRows, (3, 5)), "fused.NormOfRows"),
    _case("G15", "nki-samples PR#81", "softmax after dropout in backward", of(DroppedSoftmax), "fused.DroppedSoftmax"),
    _case("G16", "apex PR#816", "dropout scaled by p in backward", of(DropoutScale), "fused.DropoutScale"),
    _case("G18", "NeMo Automodel PR#2428", "soft targets assumed to sum to 1", soft_targets, "SoftTargets"),
    _case(
        "G20", "flash-linear-attention PR#6", "linear attention: dV missing", of(GatedLinearAttention, (3, 7)),
        "fused.GatedLinearAttention",
    ),
    _case("G23", "pytorch#13669", "gradient of a broadcast operand not reduced", of(Scaled), "fused.Scaled"),
    _case("G26", "pytorch#180164", "slice scatter zeroes the whole gradient", of(Scatter), "fused.Scatter"),
    _case("G27", "pytorch#185509", "max pool sends the gradient elsewhere", of(PoolOfMask), "fused.PoolOfMask"),
    _case("G28", "pytorch#136662", "one of two in-place adds lost", of(TwoInPlaceAdds), "fused.TwoInPlaceAdds"),
    _case("G32", "torch-dwt#2", "filter not mirrored in backward", of(Wavelet), "fused.Wavelet"),
    _case("G34", "gensim#1873", "CBOW: undivided error for each word", of(MeanOfContext, (3, 4)), "fused.MeanOfContext"),
    _case("S24", "StackOverflow 41780344", "tanh's derivative by hand is wrong", of(HandWrittenTanh), "HandWrittenTanh"),
)  # fmt: skip
