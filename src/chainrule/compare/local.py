"""One formula's rule against differences of that formula alone, with the numbers of a recorded forward pass.

With a random cotangent ḡ for each output and random tangents v on all float inputs jointly, the rule claims

    d/dt Σ <ḡ, op(x + t v)>  =  Σ <vjp(ḡ), v>      at t = 0

and differences say what it is, whatever the size of the tensors: 4 runs of the op by order 4, which is exact for all that
is linear or a product; 8 by order 8 where the formula bends more, or the rule disagrees. Each input moves in proportion
to its own size; where the formula has a domain (log, division) each entry moves in proportion to itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, run_op
from chainrule.autodiff.reverse import fit
from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.graph import Node, Ref, Value
from chainrule.numdiff.directions import standard_normal
from chainrule.numdiff.noise import sigmas
from chainrule.numdiff.stencils import NOISE_MARGIN, ORDER_4, ORDER_8, Estimate, Stencil, apply, as_step, better
from chainrule.numdiff.steps import WIDEST_CHANGE, rms, second_step
from chainrule.tolerance import numerical_limit

RESOLUTION = 1e-9  # of the scale: above it a second step length is tried
STEP = 0.02  # of a tensor's rms: all entries move at once here, so that 0.1 would already be a long way for a norm
UNIT = torch.finfo(torch.float64).eps
MASK = 1e6  # an output this many times the others is a mask such as -1e9; what moves it is beyond its rounding
LARGEST = 1.0  # size from which on a tensor's entries move by 0.02 and no more

# (argument, place in it if it is a list)
Place = tuple[str, int | None]


@dataclass(frozen=True)
class LocalResult:
    """What the rule claims and what differences say.

    analytic  Σ <vjp(ḡ), v>
    estimate  of the same by order-8 differences, with its bar
    scale     typical size of such a slope: √Σ |vjp(ḡ)|² v², the rule's gradient weighted by the tangents' size
    """

    analytic: float
    estimate: Estimate
    scale: float


def local_check(node: Node, values: Mapping[str, Value], rule: Rule, generator: torch.Generator) -> LocalResult | None:
    """The rule of one node against order-8 differences of its op; None if no input of the node can move.

    values  of an evaluation of the graph, in float64
    """
    arguments = resolve(node, values)
    places = moving_places(node, arguments, rule)
    output = values[node.name]
    cotangent = _cotangent(output, generator)
    if not places or not any(g is not None for g in _parts(cotangent)):
        return None
    sizes = {place: _size(at(arguments, place), rule) for place in places}
    tangents = {place: _normal(at(arguments, place), generator).mul_(size) for place, size in sizes.items()}
    gradients = rule.gradients(cotangent, output, arguments)
    analytic, square = 0.0, 0.0
    for place, tangent in tangents.items():
        gradient = _gradient(gradients, place, at(arguments, place))
        if gradient is not None:
            analytic += _inner(gradient, tangent)
            square += _weighted_norm(gradient, sizes[place]) ** 2
    scale = math.sqrt(square)
    along = _change_along(node, rule, arguments, output, cotangent, tangents)
    return LocalResult(analytic, _differences(along, analytic, scale, _least_noise(cotangent, output)), scale)


def moving_places(node: Node, arguments: Mapping[str, Any], rule: Rule) -> list[Place]:
    """The float tensors among the arguments that the rule is to differentiate."""
    found: list[Place] = []
    for name, argument in node.arguments.items():
        if name in rule.nondiff:
            continue
        if isinstance(argument, Ref):
            found.append((name, None))
        elif isinstance(argument, tuple):
            found += [(name, i) for i, item in enumerate(argument) if isinstance(item, Ref)]
    return [place for place in found if _is_float(at(arguments, place)) and at(arguments, place).numel()]


def at(arguments: Mapping[str, Any], place: Place) -> Any:
    """The value at a place."""
    name, index = place
    return arguments[name] if index is None else arguments[name][index]


def _change_along(
    node: Node,
    rule: Rule,
    arguments: Mapping[str, Any],
    output: Value,
    cotangent: Any,
    tangents: Mapping[Place, Tensor],
) -> Callable[[float], float]:
    """t -> Σ <ḡ, op(x + t v) - op(x)>, its branch held at t = 0.

    The outputs are subtracted before they are summed: a mask of -1e9 among them would drown all others in the sum.
    """
    base = {**arguments, "y": output}
    room = {place: torch.empty_like(at(arguments, place)) for place in tangents}  # fresh memory each time costs more
    gaps = [g is not None and bool((g == 0).any()) for g in _parts(cotangent)]
    apart = [torch.empty(0) if g is None else torch.empty_like(g) for g in _parts(cotangent)]

    def change(t: float) -> float:
        moved = {name: list(part) if isinstance(part, list) else part for name, part in arguments.items()}
        for (name, index), tangent in tangents.items():
            there = torch.add(at(arguments, (name, index)), tangent, alpha=t, out=room[name, index])
            if index is None:
                moved[name] = there
            else:
                moved[name][index] = there
        outputs = run_op(node.op, moved) if rule.frozen is None else call_by_name(rule.frozen, moved, base)
        total = 0.0
        for g, gap, y, y0, out in zip(_parts(cotangent), gaps, _parts(outputs), _parts(output), apart, strict=True):
            if g is not None:
                torch.sub(y, y0, out=out)
                total += _inner(g, out.nan_to_num_(0.0) if gap else out)
        return total

    return change


def _differences(change: Callable[[float], float], claimed: float, scale: float, least_noise: float) -> Estimate:
    """Order 4 if its bar is narrow and the claim agrees, else order 8 on twice the points; seldom at other steps too.

    Only a pass rests on order 4: |D4 - D2| can be small by accident, and then a right rule would seem to be wrong.
    """
    seen = {0.0: 0.0}
    quick = _difference(ORDER_4, change, STEP, least_noise, seen)
    # Twice a step is exactly twice the change where a formula is linear, so its points may show no rounding at all.
    quick = replace(quick, bar=_bar(quick) + NOISE_MARGIN * UNIT * scale * torch.ones_like(quick.value))
    bar = _bar(quick)
    if bar <= RESOLUTION * scale and abs(claimed - float(quick.value)) <= numerical_limit(bar, scale).value:
        return quick
    best = _difference(ORDER_8, change, STEP, least_noise, seen)
    for _ in range(2):
        if _bar(best) <= RESOLUTION * scale:
            break
        finite = math.isfinite(_bar(best))
        step = float(second_step(replace(best, noise=least_noise), ORDER_8) if finite else best.h / WIDEST_CHANGE)
        if step == float(best.h):
            break
        other = _difference(ORDER_8, change, step, least_noise, {0.0: 0.0})
        best = better(best, other) if finite else replace(other, evaluations=best.evaluations + other.evaluations)
    return best


def _difference(
    stencil: Stencil, change: Callable[[float], float], step: float, least_noise: float, seen: dict[float, float]
) -> Estimate:
    """The noise is taken from the values themselves: with the 0 at t = 0 they are equispaced, 5 by order 4, 9 by order 8.

    Their last two differences hold the noise, or the end of the Taylor series: then the bar is wider.

    seen  values known already, by t; new ones are added
    """

    def line(offsets: Tensor) -> Tensor:
        seen.update({t: change(t) for t in offsets.tolist() if t not in seen})
        return torch.tensor([seen[t] for t in offsets.tolist()], dtype=torch.float64)

    with torch.no_grad():
        estimate = apply(stencil, line, as_step(step), 0.0)
    values = torch.tensor([seen[t] for t in sorted(seen)], dtype=torch.float64)
    if not bool(torch.isfinite(values).all()):
        return replace(estimate, bar=torch.full_like(estimate.value, math.inf))
    noise = max(least_noise, *sigmas(values)[-2:])
    return replace(estimate, bar=_bar(estimate) + NOISE_MARGIN * noise * stencil.noise_gain / estimate.h, noise=noise)


def _bar(estimate: Estimate) -> float:
    assert estimate.bar is not None
    return float(estimate.bar)


def _least_noise(cotangent: Any, output: Value) -> float:
    """u · √Σ (ḡ y)²: each term of the sum is rounded at least when it moves and when it is added."""
    square = 0.0
    for g, y in zip(_parts(cotangent), _parts(output), strict=True):
        if g is not None:
            square += float((g * y).masked_fill_(g == 0, 0).norm()) ** 2
    return UNIT * math.sqrt(square)


def _cotangent(output: Value, generator: torch.Generator) -> Any:
    """Normal entries for each float output, 0 where it is not finite or a mask; None for an output that is no float."""
    if isinstance(output, tuple):
        return tuple(_cotangent(part, generator) for part in output)
    if not _is_float(output):
        return None
    g = _normal(output, generator)
    size = output.abs()
    if bool((size < MASK).all()):
        return g
    return g.masked_fill(~(size < MASK * max(1.0, rms(size[size < MASK]))), 0)


def _inner(g: Tensor, y: Tensor) -> float:
    """<g, y>, in one pass over memory where the two are laid out alike."""
    if g.is_contiguous() and y.is_contiguous():
        return float(torch.dot(g.view(-1), y.view(-1)))
    return float((g * y).sum())


def _gradient(gradients: Mapping[str, Any], place: Place, argument: Tensor) -> Tensor | None:
    name, index = place
    gradient = gradients.get(name)
    if gradient is not None and index is not None:
        gradient = gradient[index]
    return None if gradient is None else fit(gradient, argument)


def _weighted_norm(gradient: Tensor, size: Tensor) -> float:
    """‖gradient · size‖, without a copy of the gradient where all entries move alike."""
    return float(gradient.norm()) * float(size) if size.dim() == 0 else float((gradient * size).norm())


def _size(argument: Tensor, rule: Rule) -> Tensor:
    """How far an entry moves at t = 1: the tensor's rms; itself where the formula has a domain. At most 1."""
    if rule.domain is not None:
        return argument.abs().clamp_max(LARGEST)
    size = rms(argument)
    return torch.tensor(min(size, LARGEST) if 0 < size < math.inf else LARGEST, dtype=argument.dtype)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return standard_normal(like.shape, generator).to(like.dtype)


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
