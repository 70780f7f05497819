"""What every derivative rule must stand: the checks that each family's test file runs on each of its rules.

A family's test file is one parametrised test over `every_case` of its table, with samples of its own where `op_db` has
none. A check takes (rule, samples) and raises AssertionError. Cotangents and directions are normal draws; branches are
held where a rule says how (`frozen`), so a kink is no false alarm. Autograd sees all samples, the other checks a few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch._ops import OpOverload

from chainrule.autodiff.rule_text import RuleText
from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.derivatives.tangents import tangent
from derivatives import rule_runs as runs
from derivatives.rule_decomposition import agrees_with_its_decomposition, is_composite
from derivatives.rule_runs import each, evaluate, gradients, products, spread, tensors
from derivatives.rule_samples import Sample, seed

Check = Callable[[Rule, list[Sample]], None]
aten = torch.ops.aten
INEXACT = {aten.hardsigmoid.default: 1e-7}  # PyTorch's own derivative: its 1/6 is a float32 in float64 too
NOT_FINITE = {  # samples of these may have an inf or nan gradient in autograd; they are left out
    aten.logaddexp.default: "both are inf, of one sign",
    aten.logsumexp.default: "an inf, or nothing but -inf",
    **dict.fromkeys((aten.softmax.int, aten._softmax.default), "a row of nothing but -inf"),
    **dict.fromkeys((aten.log_softmax.int, aten._log_softmax.default), "a row of nothing but -inf"),
}
RESOLVE = 1e-6  # what a numerical derivative must be able to see, as in a verdict of `check`
STENCIL_8 = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
STENCIL_6 = (3 / 4, -3 / 20, 1 / 60)


def every_case(rules: Mapping[OpOverload, Rule]) -> list[Any]:
    """(op, check) for every rule and every check that has something to say about it, to parametrise a test with."""
    return [pytest.param(op, check, id=f"{op}-{check.__name__}") for op in rules for check in _checks_of(rules[op])]


def _checks_of(rule: Rule) -> Iterator[Check]:
    yield agrees_with_autograd_on_every_sample
    yield agrees_with_central_differences
    yield is_linear_in_g
    yield is_bounded_by_its_absolute_bound
    yield computes_the_same_when_printed
    yield fails_when_scaled_by_1_001
    if rule.jvp is not None or rule.linear_in:
        yield is_the_adjoint_of_its_tangent
    if rule.kink is not None or rule.domain is not None or rule.frozen is not None:
        yield says_where_it_holds
    if is_composite(rule.op):
        yield agrees_with_its_decomposition


# --- the checks -------------------------------------------------------------------------------------------------------


def agrees_with_autograd_on_every_sample(rule: Rule, samples: list[Sample]) -> None:
    """vjp = autograd's, for one random g, on all samples whose reference gradient is finite; the others are known."""
    found = [_compare_with_autograd(rule, sample) for sample in samples]
    assert "compared" in found, f"{rule.op}: none of {len(samples)} samples has a finite, nonzero gradient"
    infinite = [str(sample) for sample, outcome in zip(samples, found, strict=True) if outcome == "not finite"]
    assert not infinite or rule.op in NOT_FINITE, (
        f"autograd is inf or nan on {infinite}; list {rule.op} if that is right"
    )


def agrees_with_central_differences(rule: Rule, samples: list[Sample]) -> None:
    """<vjp(g), u> = d/ds <g, op(a + s u)> by order 8, branches held, on up to four samples."""
    resolved = [_compare_with_differences(rule, sample) for sample in spread(rule, samples, 4)]
    assert any(resolved), f"{rule.op}: the numerical derivative reached {RESOLVE:g} on no sample; give a smoother one"


def is_linear_in_g(rule: Rule, samples: list[Sample]) -> None:
    """vjp(2 g - 3 k) = 2 vjp(g) - 3 vjp(k)."""
    for sample in spread(rule, samples, 4):
        (y, g), (_, k) = (evaluate(rule, sample, draw) for draw in (1, 2))
        mixed = each(lambda a, b: 2 * a - 3 * b, g, k)
        whole, first, second = (gradients(rule, sample, one, y) for one in (mixed, g, k))
        for name, value in whole.items():
            expected = each(lambda a, b: 2 * a - 3 * b, first[name], second[name])
            runs.assert_close(expected, value, f"{sample}: vjp is not linear in g, for {name}", unit=(g, first[name]))


def is_the_adjoint_of_its_tangent(rule: Rule, samples: list[Sample]) -> None:
    """<g, J u> = <Jᵀ g, u> by the rule's jvp, or by the op itself for the arguments in which y is said to be linear."""
    for sample in spread(rule, samples, 4):
        (y, g), u = evaluate(rule, sample), runs.directions(rule, sample)
        if rule.jvp is None:
            u = {name: value for name, value in u.items() if name in rule.linear_in}
        with torch.no_grad(), runs.watched():
            ahead = tangent(rule, y, u, sample.arguments)
        assert [item.shape for item in tensors(ahead)] == [item.shape for item in tensors(y)], f"{sample}: shape of jvp"
        back = gradients(rule, sample, g, y)
        terms = [*products(g, ahead), *products(u, back, sign=-1)]
        bound = runs.AGREE * sum(abs(term) for term in terms) + 1e-13
        assert abs(math.fsum(terms)) <= bound, f"{sample}: <g, J u> - <Jᵀ g, u> = {math.fsum(terms):g} > {bound:g}"


def is_bounded_by_its_absolute_bound(rule: Rule, samples: list[Sample]) -> None:
    """|vjp| <= abs_bound, given or by default: the rule on absolute values, the scale of rounding errors."""
    for sample in spread(rule, samples, 4):
        y, g = evaluate(rule, sample)
        bounds = runs.absolute_bounds(rule, sample, g, y)
        for name, value in gradients(rule, sample, g, y).items():
            for gradient, bound in zip(tensors(value), tensors(bounds[name]), strict=True):
                excess = (gradient.abs() - bound * (1 + 1e-9) - 1e-12).max().item() if gradient.numel() else 0.0
                assert excess <= 0, f"{sample}: |dL/d{name}| exceeds abs_bound by {excess:g}; the rule needs its own"


def says_where_it_holds(rule: Rule, samples: list[Sample]) -> None:
    """`kink` and `domain` are masks, `frozen` at the base point is the op itself."""
    for sample in spread(rule, samples, 4):
        for mask in (rule.kink, rule.domain):
            value = None if mask is None else call_by_name(mask, sample.arguments)
            assert value is None or value.dtype == torch.bool, f"{sample}: a mask must be boolean, got {value}"
        if rule.frozen is not None:
            y, _ = evaluate(rule, sample)
            held = call_by_name(rule.frozen, sample.arguments, {**sample.arguments, "y": y})
            runs.assert_close(y, held, f"{sample}: frozen at the base point is not the op", unit=y)


def computes_the_same_when_printed(rule: Rule, samples: list[Sample]) -> None:
    """The text that `backward_source` prints of a rule stands alone: torch and what it defines is all that it needs."""
    text, scope = RuleText(), {}
    name = text.add(rule)
    exec(f"{text.imports}\n\n{text}", scope)
    as_printed = {"local": scope[name]} if rule.local is not None else {"vjp": scope[name]}
    printed = replace(rule, **as_printed, **({"vjp": _from_slope(scope[name])} if rule.local is not None else {}))
    for sample in spread(rule, samples, 2):
        y, g = evaluate(rule, sample)
        expected, actual = gradients(rule, sample, g, y), gradients(printed, sample, g, y)
        runs.assert_close(expected, actual, f"{sample}: the printed rule differs", unit=g, agree=0.0)


def fails_when_scaled_by_1_001(rule: Rule, samples: list[Sample]) -> None:
    """A rule that is wrong by a thousandth is refused by autograd and by differences: the test of the tests."""
    wrong = replace(rule, vjp=_scaled(rule), local=None, jvp=None, linear_in=frozenset())
    for check in (agrees_with_autograd_on_every_sample, agrees_with_central_differences):
        with pytest.raises(AssertionError, match="differs from"):
            check(wrong, samples)


def _from_slope(slope: Callable[..., Any]) -> Callable[..., Mapping[str, Any]]:
    return lambda g, y, **arguments: {"self": g * call_by_name(slope, arguments, y)}


def _scaled(rule: Rule) -> Callable[..., Mapping[str, Any]]:
    def vjp(g: Any, y: Any, /, **arguments: Any) -> Mapping[str, Any]:
        given = rule.gradients(g, y, arguments)
        return {name: each(lambda t: t * 1.001, value) for name, value in given.items()}

    return vjp


# --- the references ---------------------------------------------------------------------------------------------------


def _compare_with_autograd(rule: Rule, sample: Sample) -> Literal["compared", "zero", "not finite"]:
    """Whether there was something to compare: a finite reference with a nonzero entry."""
    y, g, expected = _autograd(rule, sample)
    if not all(item.isfinite().all() for item in tensors(expected)):
        return "not finite"
    actual, bounds = gradients(rule, sample, g, y), runs.absolute_bounds(rule, sample, g, y)
    agree = INEXACT.get(rule.op, runs.AGREE)
    for name, reference in expected.items():
        message = f"{sample}: dL/d{name} differs from autograd's"
        runs.assert_close(reference, actual[name], message, unit=(g, bounds[name]), agree=agree)
    return "compared" if any(item.any() for item in tensors(expected)) else "zero"


def _autograd(rule: Rule, sample: Sample) -> tuple[Any, Any, dict[str, Any]]:
    y, leaves = runs.run_tracked(rule, sample)
    g = runs.cotangent(y, 1)
    pairs = [(out, into) for out, into in zip(tensors(y), tensors(g), strict=True) if out.requires_grad]
    inputs = tensors(leaves)
    found = torch.autograd.grad([out for out, _ in pairs], inputs, [into for _, into in pairs], allow_unused=True)
    by_leaf = {id(leaf): torch.zeros_like(leaf) if d is None else d for leaf, d in zip(inputs, found, strict=True)}
    return each(torch.detach, y), g, {name: each(lambda t: by_leaf[id(t)], value) for name, value in leaves.items()}


def _compare_with_differences(rule: Rule, sample: Sample) -> bool:
    """Whether the numerical derivative resolved RESOLVE of the scale."""
    (y, g), u = evaluate(rule, sample), runs.directions(rule, sample)
    base, at = runs.floats(rule, sample), {**sample.arguments, "y": y}

    def value(s: float) -> float:
        moved = {**sample.arguments, **{name: each(lambda a, d: a + s * d, base[name], u[name]) for name in u}}
        seed()
        with torch.no_grad():
            out = rule.op(**moved) if rule.frozen is None else call_by_name(rule.frozen, moved, at)
        return _inner(g, out)

    terms = list(products(gradients(rule, sample, g, y), u))
    scale = math.hypot(*terms) or 1.0
    noise = 2.3e-16 * math.hypot(*products(g, y))
    numerical, bar = min((order_8(value, h, noise) for h in (2e-2, 4e-3, 8e-4, 1.6e-4)), key=lambda pair: pair[1])
    difference = abs(math.fsum(terms) - numerical)
    assert not difference > max(3 * bar, 1e-3 * RESOLVE * scale) or bar > 1e-3 * scale, (
        f"{sample}: <vjp, u> = {math.fsum(terms):.12g} differs from {numerical:.12g} ± {bar:.1e} (order 8)"
    )
    return bar <= RESOLVE * scale


def _inner(g: Any, out: Any) -> float:
    """<g, out>, summed in pairs, which is exact enough beside the noise of the op."""
    parts = zip(tensors(g), tensors(out), strict=True)
    return sum(torch.where(one == 0, 0.0, one * two).sum().item() for one, two in parts if one.is_floating_point())


def order_8(f: Callable[[float], float], h: float, noise: float) -> tuple[float, float]:
    """f'(0) by the central difference of order 8, with the bar |D8 - D6| + 4 noise / h; inf where f is not finite."""
    steps = [f(k * h) - f(-k * h) for k in (1, 2, 3, 4)]
    eighth = sum(c * step for c, step in zip(STENCIL_8, steps, strict=True)) / h
    sixth = sum(c * step for c, step in zip(STENCIL_6, steps[:3], strict=True)) / h
    bar = abs(eighth - sixth) + 4 * noise / h
    return (eighth, bar) if math.isfinite(bar) else (0.0, math.inf)
