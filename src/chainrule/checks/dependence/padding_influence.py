"""padding-influence: what the mask declares as padding changes the output at valid positions.

What it checks
    With an attention mask (or lengths) among the model's arguments: the gradient of the output at valid positions, or of a
    pooled output, with respect to the inputs at padded positions is zero.
Why it matters
    A mask that is taken and not used, or handed to one of two paths, makes an example's answer depend on how long its
    neighbours in the batch are. Training goes on; the model is worse than it could be, and answers change with the batch.
How it decides
    Gaussian cotangents on the valid outputs, pulled back to the embeddings or floating inputs; the padded part must be below
    100 u of float32 of the whole. If the batch's mask has no padding, the last third of the first example is declared
    padded for this probe. Batch norm's statistics are held fixed. A warning: some architectures let padding in on purpose.
Broken
    scores = q @ k.transpose(-2, -1) / math.sqrt(d)
Repaired
    scores = (q @ k.transpose(-2, -1) / math.sqrt(d)).masked_fill(mask[:, None, None] == 0, -math.inf)
Limits
    The mask is known by its name: a (B, T) argument of zeros and ones whose name holds "mask", or (B,) lengths. A causal
    model with padding on the right is safe whatever it does with the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chainrule.capture.batches import with_tensors
from chainrule.checks.copies import Copies
from chainrule.checks.dependence.arguments import arguments_of
from chainrule.checks.dependence.locate import ROUNDING, leaking_module, mixing_line
from chainrule.checks.dependence.taps import Alter, Run, Tap, gradients_of, in_each_mode, is_mask, on_tapped_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "padding-influence"


@dataclass(frozen=True, eq=False)
class Mask:
    """The argument that says what is padding.

    keep   (B, T), True at valid positions, as the probe uses it
    given  the argument's value for the probe, in its own form
    """

    name: str
    keep: Tensor
    given: Tensor
    before: Tensor


def check(subject: Subject) -> Outcome:
    """At most one finding, in the first mode in which padding comes through."""
    return on_tapped_copies(subject, _look)


def _look(subject: Subject, copies: Copies) -> Outcome:
    arguments = arguments_of(copies)
    mask = next(_masks(arguments), None)
    if mask is None:
        return NotRun("the model takes no mask or lengths")
    hook = copies.model.register_forward_pre_hook(lambda _, a, k: _given(mask, a, k), with_kwargs=True)
    try:
        return _with_mask(subject, copies, mask, arguments)
    finally:
        hook.remove()


def _with_mask(subject: Subject, copies: Copies, mask: Mask, arguments: Mapping[str, Tensor]) -> Outcome:
    def padded(result: Run, mode: str) -> Outcome | None:
        taps = [i for i, tap in enumerate(result.taps) if _is_masked(tap, mask, arguments)]
        ratio = _ratio(subject, result, mask, taps)
        if ratio > ROUNDING:
            return [_finding(subject, copies, mask, ratio, mode)]
        return [] if taps else None

    return in_each_mode(copies, padded, "no input of the model has the mask's shape")


def _masks(arguments: Mapping[str, Tensor]) -> Iterator[Mask]:
    longest = [t for name, t in arguments.items() if t.dim() >= 2 and "mask" not in name.lower()]
    for name, tensor in arguments.items():
        if "mask" in name.lower() and tensor.dim() == 2 and tensor.shape[1] > 2 and is_mask(tensor):
            yield _mask(name, tensor)
        elif "length" in name.lower() and tensor.dim() == 1 and not tensor.is_floating_point() and longest:
            yield _lengths(name, tensor, longest[0].shape[1])


def _mask(name: str, tensor: Tensor) -> Mask:
    """A mask of the attended, or of the padded if its first column is empty and another is not."""
    of_padding = "pad" in name.lower() or (not bool(tensor[:, 0].any()) and bool(tensor.any()))
    keep = (tensor == 0) if of_padding else (tensor != 0)
    if bool(keep.all()):
        keep = keep.clone()
        keep[0, -(keep.shape[1] // 3 or 1) :] = False
    given = (~keep if of_padding else keep).to(tensor.dtype)
    return Mask(name, keep, given, tensor)


def _lengths(name: str, tensor: Tensor, longest: int) -> Mask:
    given = tensor.clone()
    if bool((given >= longest).all()):
        given[0] = longest - (longest // 3 or 1)
    keep = torch.arange(longest, device=tensor.device)[None] < given[:, None]
    return Mask(name, keep, given, tensor)


def _given(mask: Mask, args: Any, kwargs: Any) -> Any:
    """The arguments with the probe's mask in place of the batch's."""
    return with_tensors((args, kwargs), lambda tensor: mask.given if _same(tensor, mask.before) else tensor)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)


def _is_masked(tap: Tap, mask: Mask, arguments: Mapping[str, Tensor]) -> bool:
    """True for an input of the mask's shape; a decoder's own tokens are not the encoder's mask's business."""
    if tap.indices is None:
        return tap.value.dim() > 2 and tap.value.shape[:2] == mask.keep.shape and "decoder" not in tap.place
    own = [name for name, tensor in arguments.items() if _same(tensor, tap.indices)]
    return tap.indices.shape == mask.keep.shape and any("decoder" not in name for name in own)


def _ratio(subject: Subject, result: Run, mask: Mask, taps: list[int]) -> float:
    """The padded positions' share of the gradient of the valid outputs."""
    cotangent = torch.randn(result.output.shape, generator=subject.generator(45)).to(result.output)
    rows, length = mask.keep.shape
    if cotangent.dim() > 2 and cotangent.shape[0] == rows and cotangent.shape[1] >= length:
        cotangent[:, cotangent.shape[1] - length :][~mask.keep] = 0  # what comes before, such as an image, is valid
    gradients = gradients_of(result, cotangent)
    norms = [gradients[i].float().flatten(2).norm(dim=2) for i in taps]
    shares = [float(norm[~mask.keep].norm() / norm.norm()) for norm in norms if float(norm.norm()) > 0]
    return max(shares, default=0.0)


def _finding(subject: Subject, copies: Copies, mask: Mask, ratio: float, mode: str) -> Finding:
    module = leaking_module(copies, _padding_replaced(subject, mask), lambda tensor: _valid(tensor, mask))
    return Finding(
        check=NAME,
        severity="warning",
        where=module or type(copies.model).__name__,
        source=mixing_line(subject.graph, module) if module is not None else None,
        message=f"the output at valid positions depends on what {mask.name} declares as padding",
        evidence={"ratio": ratio, "mask": mask.name, "mode": mode, "module": module},
        rows=(
            ("gradient from padded positions", f"{ratio:.2e}", "of the whole gradient"),
            ("allowed", f"{ROUNDING:.1e}", "100 u of float32; a masked attention gives exactly 0"),
        ),
        notes=(
            f"Looked at {mode}. Look for a path on which {mask.name} is not handed on, a mean or a last state over all "
            "positions, a convolution or normalisation that sees the padding.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _padding_replaced(subject: Subject, mask: Mask) -> Alter:
    def alter(tensor: Tensor, _: Tensor | None) -> Tensor:
        if tensor.dim() < 3 or tensor.shape[:2] != mask.keep.shape:
            return tensor
        noise = torch.randn(tensor.shape, generator=subject.generator(46)).to(tensor) * tensor.detach().std()
        return tensor + noise * (~mask.keep)[:, :, None].to(tensor)

    return alter


def _valid(tensor: Tensor, mask: Mask) -> Tensor | None:
    """The part of a module's input or output at valid positions; a tensor without positions counts as a whole."""
    if tensor.dim() >= 2 and tensor.shape[:2] == mask.keep.shape:
        return tensor[mask.keep]
    return tensor if tensor.dim() == 2 and tensor.shape[0] == mask.keep.shape[0] else None
