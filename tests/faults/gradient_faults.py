"""Faults of the gradient beyond a wrong derivative: it is cut, spoilt by a second pass, not the same twice."""

from __future__ import annotations

import os
import time
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from chainrule import Setup
from faults.case import Case
from small_models import MLP, Block, SmallGPT, class_loss, next_token_loss, token_batch


def points(size: int = 7, width: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(size, width), torch.arange(size) % classes


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters())


def language(model: nn.Module, *, optimizer: bool = True) -> Setup:
    return Setup(model, next_token_loss, [token_batch()], adam(model) if optimizer else None)


# --- cut-gradient -----------------------------------------------------------------------------------------------------
class FusedNorm(nn.Module):
    """A layer norm that records no backward, as a fused kernel without one."""

    def __init__(self, inner: nn.LayerNorm, *, broken: bool) -> None:
        super().__init__()
        self.inner, self.broken = inner, broken

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.broken:
            with torch.no_grad():
                return self.inner(x_BTD)
        return self.inner(x_BTD)


class SequentialGPT(SmallGPT):
    """No residual around the second norm, so that what it cuts is cut."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.norm = FusedNorm(nn.LayerNorm(16), broken=broken)


def norm_under_no_grad(broken: bool) -> Setup:
    return language(SequentialGPT(broken=broken))


class Detached(nn.Module):
    def __init__(self, cut) -> None:
        super().__init__()
        self.encoder, self.middle, self.head, self.cut = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.middle(torch.tanh(self.encoder(x))))
        return self.head(self.cut(h))


def classifier(model: nn.Module) -> Setup:
    return Setup(model, class_loss, [points()], adam(model))


def detached_features(broken: bool) -> Setup:
    return classifier(Detached((lambda h: h.detach()) if broken else (lambda h: h)))


def data_attribute(broken: bool) -> Setup:
    return classifier(Detached((lambda h: h.data * 2) if broken else (lambda h: h * 2)))


def rounded_activations(broken: bool) -> Setup:
    quantised = lambda h: (h * 4).round() / 4  # noqa: E731
    through = lambda h: h + ((h * 4).round() / 4 - h).detach()  # noqa: E731
    return classifier(Detached(quantised if broken else through))


def signed_activations(broken: bool) -> Setup:
    return classifier(Detached(torch.sign if broken else torch.tanh))


def numpy_round_trip(broken: bool) -> Setup:
    leaves = lambda h: torch.from_numpy(h.detach().numpy().clip(-2, 2))  # noqa: E731
    return classifier(Detached(leaves if broken else (lambda h: h.clamp(-2, 2))))


def made_anew_from_a_list(broken: bool) -> Setup:
    anew = lambda h: torch.tensor(h.tolist())  # noqa: E731
    return classifier(Detached(anew if broken else (lambda h: h)))


class HardRouted(nn.Module):
    """A router that picks an expert by argmax; repaired, it weighs the expert by its probability."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.router, self.broken = nn.Linear(5, 3), broken
        self.experts = nn.Parameter(torch.randn(3, 5, 4) / 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x_BD: Tensor) -> Tensor:
        p_BE = self.router(x_BD).softmax(-1)
        chosen_B = p_BE.argmax(-1)
        y_BK = torch.einsum("bd,bdk->bk", x_BD, self.experts[chosen_B])
        gate_B = torch.ones(len(x_BD)) if self.broken else p_BE.gather(1, chosen_B[:, None]).squeeze(1)
        return self.head(y_BK * gate_B[:, None])


def router_by_argmax(broken: bool) -> Setup:
    return classifier(HardRouted(broken=broken))


class RMSNormFunction(torch.autograd.Function):
    """Right in x; the weight's gradient is left out if `broken`."""

    @staticmethod
    def forward(ctx, x, weight, broken):
        ctx.save_for_backward(x, weight)
        ctx.broken = broken
        return x * (x * x).mean(-1, keepdim=True).add(1e-6).rsqrt() * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        r = (x * x).mean(-1, keepdim=True).add(1e-6).rsqrt()
        gw = g * weight
        gx = r * gw - x * r**3 * (gw * x).mean(-1, keepdim=True)
        return gx, None if ctx.broken else (g * x * r).flatten(0, -2).sum(0), None


class RMSNorm(nn.Module):
    def __init__(self, width: int, *, broken: bool) -> None:
        super().__init__()
        self.weight, self.broken = nn.Parameter(torch.ones(width)), broken

    def forward(self, x: Tensor) -> Tensor:
        return RMSNormFunction.apply(x, self.weight, self.broken)


def backward_without_the_weight(broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[1].norm_2 = RMSNorm(16, broken=broken)
    return language(model)


class BiasFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, broken):
        ctx.save_for_backward(x, weight)
        ctx.broken = broken
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        flat = g.flatten(0, -2)
        bias = torch.zeros(g.shape[-1]) if ctx.broken else flat.sum(0)
        return g @ weight, flat.T @ x.flatten(0, -2), bias, None


class KernelLinear(nn.Linear):
    broken = False

    def forward(self, x: Tensor) -> Tensor:
        return BiasFunction.apply(x, self.weight, self.bias, self.broken)


def kernel_without_a_bias_gradient(broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[0].out = KernelLinear(16, 16)
    model.blocks[0].out.broken = broken
    return language(model)


class Checkpointed(SmallGPT):
    """Frozen embedding, each block recomputed in backward: the reentrant kind needs an input that requires grad."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.embedding.requires_grad_(False)
        self.position.requires_grad_(False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT) + self.position[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTD = checkpoint(block, x_BTD, use_reentrant=self.reentrant)
        return self.head(self.norm(x_BTD))


def checkpoint_of_frozen_inputs(broken: bool) -> Setup:
    return language(Checkpointed(reentrant=broken))


class Residual(Block):
    """The block's sum is cut in the broken one: only the skip's detach was meant for logging."""

    broken = False

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD = super().forward(x_BTD)
        return y_BTD.detach() if self.broken else y_BTD


def block_detached(broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[1] = Residual(16, 2, nn.GELU())
    model.blocks[1].broken = broken
    return language(model)


class Recurrent(nn.Module):
    """Truncated by one step too many: the state is detached before the loss sees it."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.embedding, self.cell, self.head = nn.Embedding(16, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 16)
        self.broken = broken

    def forward(self, tokens_BT: Tensor) -> Tensor:
        h_BTD, _ = self.cell(self.embedding(tokens_BT))
        return self.head(h_BTD.detach() if self.broken else h_BTD)


def recurrent_state_detached(broken: bool) -> Setup:
    model = Recurrent(broken=broken)
    return Setup(model, next_token_loss, [token_batch(16)], adam(model))


# --- wrong-second-pass ------------------------------------------------------------------------------------------------
class SoftmaxInPlace(torch.autograd.Function):
    """Cross-entropy-like kernel that stores its gradient in its input's memory in forward."""

    @staticmethod
    def forward(ctx, x, broken):
        p = x.softmax(-1)
        y = (x.logsumexp(-1) ** 2).sum()
        grad = 2 * x.logsumexp(-1, keepdim=True) * p
        if broken:
            x.data.copy_(grad)
            ctx.save_for_backward(x)
        else:
            ctx.save_for_backward(grad)
        return y

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


class AfterSoftmax(nn.Module):
    """The kernel reads a softmax's output, which softmax needs for its own backward."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.body, self.broken = MLP(), broken

    def forward(self, x: Tensor) -> Tensor:
        return SoftmaxInPlace.apply(self.body(x).softmax(-1), self.broken)


def kernel_overwrites_its_input(broken: bool) -> Setup:
    return Setup(AfterSoftmax(broken=broken), lambda m, b: m(b), [torch.randn(7, 5)])


class StaticBuffer(torch.autograd.Function):
    """A scale whose weight gradient lies in one buffer, as in a captured CUDA graph."""

    buffers: ClassVar[dict[int, Tensor]] = {}

    @staticmethod
    def forward(ctx, x, weight, broken):
        ctx.save_for_backward(x, weight)
        ctx.broken = broken
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        gradient = (g * x).flatten(0, -2).sum(0)
        if ctx.broken:
            buffer = StaticBuffer.buffers.setdefault(weight.numel(), torch.zeros_like(weight))
            buffer.copy_(gradient)
            gradient = buffer.detach()
        return g * weight, gradient, None


class Scale(nn.Module):
    def __init__(self, function: type[torch.autograd.Function], width: int, *, broken: bool) -> None:
        super().__init__()
        self.weight, self.function, self.broken = nn.Parameter(torch.rand(width) + 0.5), function, broken

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x, self.weight, self.broken)


def with_scale(function: type[torch.autograd.Function], *, broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[1].norm_2 = nn.Sequential(nn.LayerNorm(16), Scale(function, 16, broken=broken))
    return language(model)


def static_gradient_buffer(broken: bool) -> Setup:
    return with_scale(StaticBuffer, broken=broken)


class WritesGrad(torch.autograd.Function):
    """Puts the weight's gradient into .grad itself: in place of, or on top of, what is there."""

    @staticmethod
    def forward(ctx, x, weight, broken):
        ctx.save_for_backward(x, weight)
        ctx.broken, ctx.leaf = broken, weight
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        gradient = (g * x).flatten(0, -2).sum(0)
        if not ctx.broken:
            return g * weight, gradient, None
        ctx.leaf.grad = gradient
        return g * weight, None, None


def grad_overwritten(broken: bool) -> Setup:
    return with_scale(WritesGrad, broken=broken)


class SpoilsSaved(torch.autograd.Function):
    """Scales what it saved in place in backward: right once."""

    @staticmethod
    def forward(ctx, x, weight, broken):
        ctx.save_for_backward(x.clone(), weight)
        ctx.broken = broken
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        product = x.data.mul_(g) if ctx.broken else x * g
        return g * weight, product.flatten(0, -2).sum(0), None


def backward_overwrites_what_it_saved(broken: bool) -> Setup:
    return with_scale(SpoilsSaved, broken=broken)


# --- nondeterministic -------------------------------------------------------------------------------------------------
class Jittered(nn.Module):
    """Adds noise from a source of its own in the broken one, from torch's generator in the other."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.linear, self.broken = nn.Linear(16, 16), broken

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.tensor([byte / 256 for byte in os.urandom(16)]) if self.broken else torch.rand(16)
        return self.linear(x) + 0.1 * noise


def noise_of_the_system(broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[1].value = Jittered(broken=broken)
    return language(model)


class Clocked(nn.Module):
    """Its scale depends on the time."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.linear, self.broken = nn.Linear(5, 5), broken

    def forward(self, x: Tensor) -> Tensor:
        scale = 1 + (time.perf_counter_ns() % 1_000_003) / 1e6 if self.broken else 1.5
        return torch.tanh(self.linear(x) * scale)


def scale_by_the_clock(broken: bool) -> Setup:
    return classifier(nn.Sequential(Clocked(broken=broken), nn.Linear(5, 3)))


# --- awkward-shapes ---------------------------------------------------------------------------------------------------
class MinusProduct(torch.autograd.Function):
    """y = -prod(x) along the last axis; the broken one forgets what flows in from above."""

    @staticmethod
    def forward(ctx, x, broken):
        y = -x.prod(-1)
        ctx.save_for_backward(x, y)
        ctx.broken = broken
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        gradient = y.unsqueeze(-1) / x
        return (gradient if ctx.broken else g.unsqueeze(-1) * gradient), None


class Products(nn.Module):
    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.linear, self.broken = nn.Linear(5, 4), broken

    def forward(self, x: Tensor) -> Tensor:
        return MinusProduct.apply(self.linear(x).exp(), self.broken)


def ignores_the_incoming_gradient(broken: bool) -> Setup:
    return Setup(Products(broken=broken), lambda m, b: m(b).sum(), [torch.randn(6, 5)])


class BlockedNorm(torch.autograd.Function):
    """Scale by a weight, its gradient summed by blocks of four rows: the broken one drops a last, short block."""

    @staticmethod
    def forward(ctx, x, weight, broken):
        ctx.save_for_backward(x, weight)
        ctx.broken = broken
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        rows = (g * x).flatten(0, -2)
        whole = rows[: len(rows) // 4 * 4] if ctx.broken else rows
        return g * weight, whole.sum(0), None


def drops_the_last_block(broken: bool) -> Setup:
    return with_scale(BlockedNorm, broken=broken)


class MeanOfRows(torch.autograd.Function):
    """Mean over the last axis but one; the broken backward divides by a size that it assumes."""

    @staticmethod
    def forward(ctx, x, broken):
        ctx.shape, ctx.broken = x.shape, broken
        return x.mean(-2)

    @staticmethod
    def backward(ctx, g):
        rows = 8 if ctx.broken else ctx.shape[-2]
        return (g / rows).unsqueeze(-2).expand(ctx.shape), None


class Bag(nn.Module):
    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.token, self.head, self.broken = nn.Embedding(20, 8), nn.Linear(8, 8), broken

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(MeanOfRows.apply(self.token(ids_BT), self.broken))


def assumes_a_length(broken: bool) -> Setup:
    """Every batch of the loop has eight positions but the last one."""
    loss = lambda m, ids_BT: m(ids_BT).logsumexp(-1).mean()  # noqa: E731
    return Setup(Bag(broken=broken), loss, [torch.randint(20, (4, 8))])


CASES: list[Case] = [
    Case("G21", "candle PR#3823", "norm computed under no_grad", "cut-gradient", norm_under_no_grad, "self.inner"),
    Case("G21b", "candle#2168", "features detached", "cut-gradient", detached_features, "h.detach()"),
    Case("G21c", "generic", ".data in the forward pass", "cut-gradient", data_attribute, "h.data"),
    Case("G21d", "candle#3569", "a block's output detached", "cut-gradient", block_detached, "y_BTD.detach()"),
    Case("G21e", "generic", "LSTM's output detached", "cut-gradient", recurrent_state_detached, "h_BTD.detach()"),
    Case("P05", "generic", "rounding without straight-through", "cut-gradient", rounded_activations, "round"),
    Case("P06", "generic", "sign as activation", "cut-gradient", signed_activations, "sign"),
    Case("P07", "generic", "round trip through NumPy", "cut-gradient", numpy_round_trip, "numpy"),
    Case("G22b", "aprender#3034", "a tensor made anew from a list", "cut-gradient", made_anew_from_a_list, "tolist"),
    Case("P08", "generic", "router by argmax alone", "cut-gradient", router_by_argmax, "argmax"),
    Case("G02", "unsloth#4533", "RMSNorm's weight gets None", "cut-gradient", backward_without_the_weight, "RMSNormF"),
    Case(
        "G40", "flash-sparse-attention PR#62", "bias gets zeros", "cut-gradient", kernel_without_a_bias_gradient, "Bias"
    ),
    Case(
        "O11",
        "LoRA#120",
        "reentrant checkpoint of frozen inputs",
        "cut-gradient",
        checkpoint_of_frozen_inputs,
        "blocks",
    ),
    Case(
        "G09",
        "Liger-Kernel#272",
        "kernel overwrites its input",
        "wrong-second-pass",
        kernel_overwrites_its_input,
        "Softmax",
    ),
    Case(
        "G29",
        "pytorch#181723",
        "gradients in a static buffer",
        "wrong-second-pass",
        static_gradient_buffer,
        "StaticBuffer",
    ),
    Case("G30", "llm.c PR#408", "gradient overwritten, not added", "wrong-second-pass", grad_overwritten, "WritesGrad"),
    Case(
        "G29b", "generic", "saved tensor spoilt", "wrong-second-pass", backward_overwrites_what_it_saved, "SpoilsSaved"
    ),
    Case("G60", "generic", "noise of the operating system", "nondeterministic", noise_of_the_system, "blocks.1.value"),
    Case("G61", "generic", "a scale that depends on the time", "nondeterministic", scale_by_the_clock, "0"),
    Case(
        "G07",
        "pytorch#995",
        "incoming gradient ignored",
        "awkward-shapes",
        ignores_the_incoming_gradient,
        "MinusProduct",
    ),
    Case("G04", "tt-metal#53204", "last block of a sum dropped", "awkward-shapes", drops_the_last_block, "BlockedNorm"),
    Case("G13", "flash-attention#2552", "assumes a length of eight", "awkward-shapes", assumes_a_length, "MeanOfRows"),
]
