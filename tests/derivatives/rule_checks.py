"""What every derivative rule must stand: the checks that each family's test file runs on each of its rules.

A family's test file is one parametrised test over its table (see test_elementwise.py), with samples of its own where
`op_db` has none. A check takes (rule, samples) and raises AssertionError. Cotangents and directions are normal draws;
branches are held where a rule says how (`frozen`), so a kink is no false alarm.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.derivatives.tangents import has_tangent, tangent
from derivatives.rule_samples import Sample

Check = Callable[[Rule, list[Sample]], None]
AGREE = 1e-10  # of the largest entry: rules and autograd add up in different orders
INEXACT = {torch.ops.aten.hardsigmoid.default: 1e-7}  # PyTorch's own derivative: its 1/6 is a float32 in float64 too
RESOLVE = 1e-6  # what a numerical derivative must be able to see, as in a verdict of `check`
IN_PLACE = {
    torch.ops.aten.copy.default: lambda self, src, non_blocking: torch.empty_like(self).copy_(src)
}  # for autograd
STENCIL_8 = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
STENCIL_6 = (3 / 4, -3 / 20, 1 / 60)


# --- the checks -------------------------------------------------------------------------------------------------------


def agrees_with_autograd_on_every_sample(rule: Rule, samples: list[Sample]) -> None:
    """vjp = autograd's, for one random g, on all samples whose reference gradient is finite."""
    compared = [_compare_with_autograd(rule, sample) for sample in samples]
    assert any(compared), f"{rule.op}: none of {len(samples)} samples has a finite, nonzero gradient"


def agrees_with_central_differences(rule: Rule, samples: list[Sample]) -> None:
    """<vjp(g), u> = d/ds <g, op(a + s u)> by order 8, branches held, on up to four samples."""
    resolved = [_compare_with_differences(rule, sample) for sample in _spread(rule, samples, 4)]
    assert any(resolved), f"{rule.op}: the numerical derivative reached {RESOLVE:g} on no sample; give a smoother one"


def is_linear_in_g(rule: Rule, samples: list[Sample]) -> None:
    """vjp(2 g - 3 k) = 2 vjp(g) - 3 vjp(k)."""
    for sample in _spread(rule, samples, 6):
        (y, g), (_, k) = (evaluate(rule, sample, seed) for seed in (1, 2))
        mixed = _map(lambda a, b: 2 * a - 3 * b, g, k)
        whole, first, second = (gradients(rule, sample, one, y) for one in (mixed, g, k))
        for name, value in whole.items():
            expected = _map(lambda a, b: 2 * a - 3 * b, first[name], second[name])
            assert_close(expected, value, f"{sample}: vjp is not linear in g, for {name}", unit=g)


def is_the_adjoint_of_its_tangent(rule: Rule, samples: list[Sample]) -> None:
    """<g, J u> = <Jᵀ g, u> where the rule has a jvp or declares that y is linear."""
    for sample in _spread(rule, samples, 6):
        (y, g), u = evaluate(rule, sample), directions(rule, sample)
        if not has_tangent(rule, frozenset(u)):
            continue
        with torch.no_grad(), watched():
            ahead = tangent(rule, y, u, sample.arguments)
        assert [item.shape for item in tensors(ahead)] == [item.shape for item in tensors(y)], f"{sample}: shape of jvp"
        terms = [*_products(g, ahead), *_products(gradients(rule, sample, g, y), u, sign=-1)]
        bound = AGREE * sum(abs(term) for term in terms) + 1e-13
        assert abs(math.fsum(terms)) <= bound, f"{sample}: <g, J u> - <Jᵀ g, u> = {math.fsum(terms):g} > {bound:g}"


def is_bounded_by_its_absolute_bound(rule: Rule, samples: list[Sample]) -> None:
    """|vjp| <= abs_bound, given or by default: the rule on absolute values, the scale of rounding errors."""
    for sample in _spread(rule, samples, 6):
        y, g = evaluate(rule, sample)
        bounds = _absolute_bounds(rule, sample, g, y)
        for name, value in gradients(rule, sample, g, y).items():
            for gradient, bound in zip(tensors(value), tensors(bounds[name]), strict=True):
                excess = (gradient.abs() - bound * (1 + 1e-9) - 1e-12).max().item() if gradient.numel() else 0.0
                assert excess <= 0, f"{sample}: |dL/d{name}| exceeds abs_bound by {excess:g}; the rule needs its own"


def says_where_it_holds(rule: Rule, samples: list[Sample]) -> None:
    """`kink` and `domain` are masks, `frozen` at the base point is the op itself."""
    for sample in _spread(rule, samples, 6):
        for mask in (rule.kink, rule.domain):
            value = None if mask is None else call_by_name(mask, sample.arguments)
            assert value is None or value.dtype == torch.bool, f"{sample}: a mask must be boolean, got {value}"
        if rule.frozen is not None:
            y, _ = evaluate(rule, sample)
            held = call_by_name(rule.frozen, sample.arguments, {**sample.arguments, "y": y})
            assert_close(y, held, f"{sample}: frozen at the base point is not the op", unit=y)


def fails_when_scaled_by_1_001(rule: Rule, samples: list[Sample]) -> None:
    """A rule that is wrong by a thousandth is refused by autograd and by differences: the test of the tests."""
    wrong = replace(rule, vjp=_scaled(rule), local=None, jvp=None, linear_in=frozenset())
    for check in (agrees_with_autograd_on_every_sample, agrees_with_central_differences):
        with pytest.raises(AssertionError, match="differs from"):
            check(wrong, samples)


EVERY_CHECK: tuple[Check, ...] = (
    agrees_with_autograd_on_every_sample,
    agrees_with_central_differences,
    is_linear_in_g,
    is_the_adjoint_of_its_tangent,
    is_bounded_by_its_absolute_bound,
    says_where_it_holds,
    fails_when_scaled_by_1_001,
)


# --- running an op and its rule ---------------------------------------------------------------------------------------


def evaluate(rule: Rule, sample: Sample, seed: int = 1) -> tuple[Any, Any]:
    """y and g ~ N(0, 1); g is zero for an output without derivative (an index, PyTorch's own buffer)."""
    y, _ = _tracked(rule, sample)
    return _map(torch.detach, y), _cotangent(y, seed)


def gradients(rule: Rule, sample: Sample, g: Any, y: Any) -> dict[str, Any]:
    """The rule's gradients of the differentiable arguments, summed to their shapes; checks keys, shapes, what runs."""
    with torch.no_grad(), watched():
        given = {name: value for name, value in rule.gradients(g, y, sample.arguments).items() if value is not None}
    present = set(floats(rule, sample))
    possible = {
        argument.name for argument in sample.op._schema.arguments if "Tensor" in str(argument.type)
    } - rule.nondiff
    assert present <= given.keys() <= possible, (
        f"{sample}: expected gradients of {sorted(present)}, got {sorted(given)}"
    )
    return {name: _fit(given[name], value, f"{sample}: dL/d{name}") for name, value in floats(rule, sample).items()}


def floats(rule: Rule, sample: Sample) -> dict[str, Any]:
    """The arguments that can have a gradient: floating-point tensors, or tuples of them, that are not `nondiff`."""
    arguments = {name: value for name, value in sample.arguments.items() if name not in rule.nondiff and tensors(value)}
    return {name: value for name, value in arguments.items() if all(t.is_floating_point() for t in tensors(value))}


def _tracked(rule: Rule, sample: Sample) -> tuple[Any, dict[str, Any]]:
    """y with autograd's graph behind it, and its leaves; the same random draw each time."""
    leaves = {
        name: _map(lambda t: t.detach().clone().requires_grad_(), value) for name, value in floats(rule, sample).items()
    }
    torch.manual_seed(0)
    with torch.enable_grad():
        y = IN_PLACE.get(rule.op, rule.op)(**{**sample.arguments, **leaves})
    return tuple(y) if isinstance(y, list) else y, leaves


def _cotangent(y: Any, seed: int) -> Any:
    draw = _normal(seed)
    return _map(lambda out: draw(out) if out.requires_grad else torch.zeros_like(out), y)


def directions(rule: Rule, sample: Sample, seed: int = 3) -> dict[str, Any]:
    """u ~ N(0, 1) for each differentiable argument."""
    draw = _normal(seed)
    return {name: _map(draw, value) for name, value in floats(rule, sample).items()}


def _normal(seed: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: (
        torch.randn(like.shape, dtype=like.dtype, generator=generator)
        if like.is_floating_point()
        else torch.zeros_like(like)
    )


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


# --- the references ---------------------------------------------------------------------------------------------------


def _compare_with_autograd(rule: Rule, sample: Sample) -> bool:
    """Whether there was something to compare: a finite reference with a nonzero entry."""
    y, g, expected = _autograd(rule, sample)
    if not all(item.isfinite().all() for item in tensors(expected)):
        return False
    actual, bounds = gradients(rule, sample, g, y), _absolute_bounds(rule, sample, g, y)
    for name, reference in expected.items():
        assert_close(
            reference,
            actual[name],
            f"{sample}: dL/d{name} differs from autograd's",
            unit=(g, bounds[name]),
            agree=INEXACT.get(rule.op, AGREE),
        )
    return any(item.any() for item in tensors(expected))


def _autograd(rule: Rule, sample: Sample) -> tuple[Any, Any, dict[str, Any]]:
    y, leaves = _tracked(rule, sample)
    g = _cotangent(y, 1)
    pairs = [(out, seed) for out, seed in zip(tensors(y), tensors(g), strict=True) if out.requires_grad]
    inputs = tensors(leaves)
    found = torch.autograd.grad([out for out, _ in pairs], inputs, [seed for _, seed in pairs], allow_unused=True)
    by_leaf = {id(leaf): torch.zeros_like(leaf) if d is None else d for leaf, d in zip(inputs, found, strict=True)}
    return _map(torch.detach, y), g, {name: _map(lambda t: by_leaf[id(t)], value) for name, value in leaves.items()}


def _compare_with_differences(rule: Rule, sample: Sample) -> bool:
    """Whether the numerical derivative resolved RESOLVE of the scale."""
    (y, g), u = evaluate(rule, sample), directions(rule, sample)
    at = {**sample.arguments, "y": y}

    def value(s: float) -> float:
        moved = {
            **sample.arguments,
            **{name: _map(lambda a, d: a + s * d, floats(rule, sample)[name], u[name]) for name in u},
        }
        torch.manual_seed(0)
        with torch.no_grad():
            out = rule.op(**moved) if rule.frozen is None else call_by_name(rule.frozen, moved, at)
        return math.fsum(_products(g, out))

    terms = list(_products(gradients(rule, sample, g, y), u))
    scale = math.sqrt(math.fsum(term * term for term in terms)) or 1.0
    noise = 2.3e-16 * math.hypot(*_products(g, y))
    numerical, bar = min((order_8(value, h, noise) for h in (2e-2, 4e-3, 8e-4, 1.6e-4)), key=lambda pair: pair[1])
    difference = abs(math.fsum(terms) - numerical)
    assert not difference > max(3 * bar, 1e-3 * RESOLVE * scale) or bar > 1e-3 * scale, (
        f"{sample}: <vjp, u> = {math.fsum(terms):.12g} differs from {numerical:.12g} ± {bar:.1e} (order 8)"
    )
    return bar <= RESOLVE * scale


def order_8(f: Callable[[float], float], h: float, noise: float) -> tuple[float, float]:
    """f'(0) by the central difference of order 8, with the bar |D8 - D6| + 4 noise / h; inf where f is not finite."""
    values = [(f(k * h), f(-k * h)) for k in (1, 2, 3, 4)]
    steps = [ahead - behind for ahead, behind in values]
    eighth = math.fsum(c * step for c, step in zip(STENCIL_8, steps, strict=True)) / h
    sixth = math.fsum(c * step for c, step in zip(STENCIL_6, steps[:3], strict=True)) / h
    bar = abs(eighth - sixth) + 4 * noise / h
    return (eighth, bar) if math.isfinite(bar) else (0.0, math.inf)


# --- small tools ------------------------------------------------------------------------------------------------------


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


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a value: itself, or those of a tuple or dict."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for item in items for tensor in tensors(item)]


def _largest(value: Tensor) -> float:
    finite = value[value.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def _map(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_map(function, *items) for items in zip(value, *others, strict=True))
    return function(value, *others) if isinstance(value, Tensor) else value


def _products(a: Any, b: Any, *, sign: int = 1) -> Iterator[float]:
    """<a, b>, one term per entry with a nonzero a."""
    pairs = [(a[k], b[k]) for k in a] if isinstance(a, Mapping) else [(a, b)]
    for left, right in ((x, y) for one, two in pairs for x, y in zip(tensors(one), tensors(two), strict=True)):
        if left.is_floating_point():
            yield from (sign * torch.where(left == 0, 0.0, left * right)).flatten().tolist()


def _fit(gradient: Any, argument: Any, message: str) -> Any:
    """The gradient summed over the dimensions along which forward broadcast the argument, as the engine does."""
    if isinstance(argument, tuple):
        return tuple(_fit(one, of, message) for one, of in zip(gradient, argument, strict=True))
    assert isinstance(gradient, Tensor), f"{message} is {gradient!r}, expected a tensor"
    try:
        return gradient.sum_to_size(argument.shape).to(argument.dtype)
    except RuntimeError:
        raise AssertionError(f"{message} has shape {tuple(gradient.shape)}, expected {tuple(argument.shape)}") from None


def _absolute_bounds(rule: Rule, sample: Sample, g: Any, y: Any) -> dict[str, Any]:
    """abs_bound as the engine takes it: given, or |g| · |dy/dself|, or the vjp on absolute values."""
    magnitude = {name: _map(_abs, value) for name, value in sample.arguments.items()}
    with torch.no_grad():
        if rule.abs_bound is not None:
            bounds = call_by_name(rule.abs_bound, sample.arguments, g, y)
        elif rule.local is not None:
            bounds = {"self": g.abs() * _abs(call_by_name(rule.local, sample.arguments, y))}
        else:
            bounds = rule.gradients(_map(_abs, g), _map(_abs, y), magnitude)
    return {name: _map(torch.abs, _fit(bounds[name], value, name)) for name, value in floats(rule, sample).items()}


def _abs(value: Any) -> Any:
    return value.abs() if isinstance(value, Tensor) and value.is_floating_point() else value


def _scaled(rule: Rule) -> Callable[..., Mapping[str, Any]]:
    def vjp(g: Any, y: Any, **arguments: Any) -> Mapping[str, Any]:
        given = rule.gradients(g, y, arguments)
        return {name: _map(lambda t: t * 1.001, value) for name, value in given.items()}

    return vjp


def _spread(rule: Rule, samples: list[Sample], count: int) -> list[Sample]:
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
