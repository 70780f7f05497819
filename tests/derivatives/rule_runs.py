"""Running an op and its rule on a sample, watched, and the comparison of what came out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule.derivatives.rule import Rule, call_by_name
from derivatives.rule_samples import Sample, seed

AGREE = 1e-10  # of the largest entry: rules and autograd add up in different orders
IN_PLACE = {torch.ops.aten.copy.default: lambda self, src, non_blocking: torch.empty_like(self).copy_(src)}
"""Ops that autograd does not know, as it knows them."""


# --- one op and its rule ----------------------------------------------------------------------------------------------


def evaluate(rule: Rule, sample: Sample, draw: int = 1) -> tuple[Any, Any]:
    """y and g ~ N(0, 1); g is zero for an output without derivative (an index, PyTorch's own buffer)."""
    y, _ = run_tracked(rule, sample)
    return each(torch.detach, y), cotangent(y, draw)


def run_tracked(rule: Rule, sample: Sample) -> tuple[Any, dict[str, Any]]:
    """y with autograd's graph behind it, and its leaves; the same random draw each time."""
    tracked = lambda t: t.detach().clone().requires_grad_()  # noqa: E731
    leaves = {name: each(tracked, value) for name, value in floats(rule, sample).items()}
    seed()
    with torch.enable_grad():
        y = IN_PLACE.get(rule.op, rule.op)(**{**sample.arguments, **leaves})
    return tuple(y) if isinstance(y, list) else y, leaves


def gradients(rule: Rule, sample: Sample, g: Any, y: Any) -> dict[str, Any]:
    """The rule's gradients of the differentiable arguments, summed to their shapes; checks keys, shapes, what runs."""
    with torch.no_grad(), watched():
        given = {name: value for name, value in rule.gradients(g, y, sample.arguments).items() if value is not None}
    present = floats(rule, sample)
    possible = {a.name for a in sample.op._schema.arguments if "Tensor" in str(a.type)} - rule.nondiff
    message = f"{sample}: expected gradients of {sorted(present)}, got {sorted(given)}"
    assert present.keys() <= given.keys() <= possible, message
    return {name: fit(given[name], value, f"{sample}: dL/d{name}") for name, value in present.items()}


def absolute_bounds(rule: Rule, sample: Sample, g: Any, y: Any) -> dict[str, Any]:
    """abs_bound as the engine takes it: given, or |g| · |dy/dself|, or the vjp on absolute values."""
    with torch.no_grad():
        if rule.abs_bound is not None:
            bounds = call_by_name(rule.abs_bound, sample.arguments, g, y)
        elif rule.local is not None:
            bounds = {"self": g.abs() * _magnitude(call_by_name(rule.local, sample.arguments, y))}
        else:
            magnitudes = {name: each(_magnitude, value) for name, value in sample.arguments.items()}
            bounds = rule.gradients(each(_magnitude, g), each(_magnitude, y), magnitudes)
    return {name: each(torch.abs, fit(bounds[name], value, name)) for name, value in floats(rule, sample).items()}


def floats(rule: Rule, sample: Sample) -> dict[str, Any]:
    """The arguments that can have a gradient: floating-point tensors, or tuples of them, that are not `nondiff`."""
    arguments = {name: value for name, value in sample.arguments.items() if name not in rule.nondiff and tensors(value)}
    return {name: value for name, value in arguments.items() if all(t.is_floating_point() for t in tensors(value))}


def fit(gradient: Any, argument: Any, message: str) -> Any:
    """The gradient summed over the dimensions along which forward broadcast the argument, as the engine does."""
    if isinstance(argument, tuple):
        return tuple(fit(one, of, message) for one, of in zip(gradient, argument, strict=True))
    assert isinstance(gradient, Tensor), f"{message} is {gradient!r}, expected a tensor"
    try:
        return gradient.sum_to_size(argument.shape).to(argument.dtype)
    except RuntimeError:
        raise AssertionError(f"{message} has shape {tuple(gradient.shape)}, expected {tuple(argument.shape)}") from None


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Refuses every op whose name says backward, and every op that runs with autograd on."""
    with _Watch():
        yield


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "backward" not in str(func), f"a rule runs {func}: rules are independent of autograd's own formulas"
        assert not torch.is_grad_enabled(), f"a rule runs {func} with autograd switched on"
        return func(*args, **(kwargs or {}))


# --- draws ------------------------------------------------------------------------------------------------------------


def cotangent(y: Any, number: int) -> Any:
    draw = _normal(number)
    return each(lambda out: draw(out) if out.requires_grad else torch.zeros_like(out), y)


def directions(rule: Rule, sample: Sample) -> dict[str, Any]:
    """u ~ N(0, 1) for each differentiable argument."""
    draw = _normal(3)
    return {name: each(draw, value) for name, value in floats(rule, sample).items()}


def _normal(number: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(number)
    return lambda like: torch.randn(like.shape, dtype=like.dtype, generator=generator)


def spread(rule: Rule, samples: list[Sample], count: int) -> list[Sample]:
    """Up to `count` samples, spread over the list, with finite inputs and a finite, nonzero gradient."""
    stride = max(1, len(samples) // count)
    order = [sample for start in range(stride) for sample in samples[start::stride]]
    usable = list(itertools.islice((sample for sample in order if _usable(rule, sample)), count))
    assert usable, f"{rule.op}: no sample of {len(samples)} is finite and has a gradient; give one"
    return usable


def _usable(rule: Rule, sample: Sample) -> bool:
    if not all(item.isfinite().all() and 0 < item.numel() <= 10_000 for item in tensors(floats(rule, sample))):
        return False
    y, g = evaluate(rule, sample)
    found = gradients(rule, sample, g, y)
    return all(item.isfinite().all() for item in [*tensors(y), *tensors(found)]) and any(
        t.any() for t in tensors(found)
    )


# --- comparing --------------------------------------------------------------------------------------------------------


def assert_close(expected: Any, actual: Any, message: str, *, unit: Any, agree: float = AGREE) -> None:
    """Every entry within `agree` of the largest, or within rounding of the unit (what the entries are made of)."""
    floor = 1e-13 * max((_largest(item) for item in tensors(unit)), default=0.0)
    for want, have in zip(tensors(expected), tensors(actual), strict=True):
        assert want.shape == have.shape, f"{message}: shape {tuple(have.shape)}, expected {tuple(want.shape)}"
        if want.numel() == 0 or not want.is_floating_point():
            assert torch.equal(want, have), message
            continue
        worst = torch.where(want == have, 0.0, (want - have).abs()).max().item()
        assert worst <= agree * _largest(want) + floor, f"{message} by {worst:.3g}, of {_largest(want):.3g}"


def products(a: Any, b: Any, *, sign: int = 1) -> Iterator[float]:
    """The terms of <a, b>: entry times entry, over everything in two values of one form."""
    pairs = [(a[k], b[k]) for k in a] if isinstance(a, Mapping) else [(a, b)]
    for left, right in ((x, y) for one, two in pairs for x, y in zip(tensors(one), tensors(two), strict=True)):
        if left.is_floating_point():
            yield from (sign * torch.where(left == 0, 0.0, left * right)).flatten().tolist()


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a value: itself, or those of a tuple or dict."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in tensors(item)]


def each(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """The function of every tensor in a tensor or tuple; what is no tensor stays."""
    if isinstance(value, (tuple, list)):
        return tuple(each(function, *items) for items in zip(value, *others, strict=True))
    return function(value, *others) if isinstance(value, Tensor) else value


def _largest(value: Tensor) -> float:
    finite = value[value.isfinite()] if value.is_floating_point() else torch.zeros(0)
    return finite.abs().max().item() if finite.numel() else 0.0


def _magnitude(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.is_floating_point() else value
