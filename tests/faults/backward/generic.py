"""Wrong backwards that can befall any formula: each changes one gradient tensor of the right backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from faults.backward.formula import Call, Gradients, Wrong

Change = Callable[[Tensor], Tensor]


def put(gradients: Gradients, argument: int, value: Tensor | None) -> Gradients:
    """The gradients with that of one argument replaced."""
    return tuple(value if i == argument else gradient for i, gradient in enumerate(gradients))


def on(change: Change, argument: int = 0) -> Wrong:
    """A wrong backward that applies `change` to one argument's gradient."""

    def wrong(call: Call) -> Gradients:
        right = call.right[argument]
        assert right is not None
        return put(call.right, argument, change(right))

    return wrong


def half(gradient: Tensor) -> Tensor:
    return 0.5 * gradient


def a_thousandth_more(gradient: Tensor) -> Tensor:
    return 1.001 * gradient


def a_millionth_more(gradient: Tensor) -> Tensor:
    return (1 + 1e-6) * gradient


def negative(gradient: Tensor) -> Tensor:
    return -gradient


def zero(gradient: Tensor) -> Tensor:
    return torch.zeros_like(gradient)


def noisy(gradient: Tensor) -> Tensor:
    """Gaussian noise of the gradient's own size."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
    return gradient + noise.to(gradient.dtype) * gradient.square().mean().sqrt()


def spoilt(gradient: Tensor, at: tuple[int | slice, ...]) -> Tensor:
    """The gradient with the places `at` moved by one and a half times its rms."""
    changed = gradient.clone()
    changed[at] += 1.5 * gradient.square().mean().sqrt()
    return changed


def one_entry(gradient: Tensor) -> Tensor:
    return spoilt(gradient, tuple(size // 2 for size in gradient.shape))


def one_row(gradient: Tensor) -> Tensor:
    return spoilt(gradient, (slice(None),) * (gradient.dim() - 2) + (gradient.shape[-2] // 2,))


def one_column(gradient: Tensor) -> Tensor:
    return spoilt(gradient, (slice(None),) * (gradient.dim() - 1) + (gradient.shape[-1] // 2,))


def without_last_position(gradient_BTD: Tensor) -> Tensor:
    changed = gradient_BTD.clone()
    changed[:, -1] = 0
    return changed


def without_last_example(gradient_BTD: Tensor) -> Tensor:
    changed = gradient_BTD.clone()
    changed[-1] = 0
    return changed


def misaligned_if_odd(gradient_BTD: Tensor) -> Tensor:
    """A buffer padded to an even number of positions and read back without the padding."""
    batch, length, width = gradient_BTD.shape
    padded = torch.nn.functional.pad(gradient_BTD, (0, 0, 0, length % 2))
    return padded.flatten()[: batch * length * width].view(batch, length, width)


def shifted(gradient_BTD: Tensor) -> Tensor:
    return gradient_BTD.roll(1, dims=1)


def clipped(gradient: Tensor) -> Tensor:
    bound = 0.5 * float(gradient.abs().max())
    return gradient.clamp(-bound, bound)


def rounded_to_bfloat16(gradient: Tensor) -> Tensor:
    return gradient.bfloat16().to(gradient.dtype)


def transposed(gradient_DD: Tensor) -> Tensor:
    return gradient_DD.mT.contiguous()


def without_average(gradient: Tensor) -> Tensor:
    """The mean where the sum over rows belongs (rows of the host: 28)."""
    return gradient / 28


def upper_half_only(gradient: Tensor) -> Tensor:
    """The last block of a reduction overwrites the ones before: half of the width is never written."""
    changed = gradient.clone()
    changed[..., : gradient.shape[-1] // 2] = 0
    return changed


def nothing_for(argument: int) -> Wrong:
    """None for one argument: everything upstream of it is cut off."""
    return lambda call: put(call.right, argument, None)


def ignores_g(call: Call) -> Gradients:
    """The backward takes the output's gradient to be one."""
    return call.again(g=tuple(torch.ones_like(g) for g in call.g))


def stale(call: Call) -> Gradients:
    """The backward reads what the latest forward saved, not what its own forward saved."""
    return call.again(saved=call.state["latest"])


def momentum(call: Call) -> Gradients:
    """The gradient is averaged with that of the call before."""
    before = call.state.get("gradient", call.right[0])
    call.state["gradient"] = call.right[0]
    return put(call.right, 0, 0.5 * call.right[0] + 0.5 * before)


def one_buffer(call: Call) -> Gradients:
    """Every call returns the same buffer, which the next call overwrites."""
    buffer = call.state.setdefault("buffer", torch.empty_like(call.lent[1][0]))
    return put(call.right, 0, buffer.copy_(call.right[0]))


def overwrites_g(call: Call) -> Gradients:
    """The right gradient, computed in place in the output's gradient, which the residual path still needs."""
    g, factor = call.lent[0][0], call.lent[1][1]
    return put(call.right, 0, g.mul_(factor))


def overwrites_saved(call: Call) -> Gradients:
    """Scratch values are added up in a saved input, which the formula before has saved too."""
    saved = call.lent[1][0].data
    saved.add_(call.right[0].to(saved.dtype), alpha=50.0)
    return call.right
