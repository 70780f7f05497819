"""What must hold for every tape, whatever the model: helpers of the tape's tests, independent of our derivative rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.autodiff.evaluate import evaluate, value_of
from chainrule.autodiff.reverse import active_values, output_refs
from chainrule.capture.tape import Tape
from chainrule.graph import Node, Ref

aten = torch.ops.aten


def disagreements(tape: Tape, ulps: float = 64) -> dict[str, float]:
    """Values that evaluating the graph does not reproduce: by name, the largest difference in units of the tensor's ulp."""
    found = {}
    for name, value in evaluate(tape.graph).items():
        pairs = zip(_items(value), _items(tape.values[name]), strict=True)
        difference = max(
            (_ulps(ours, recorded) for ours, recorded in pairs if isinstance(recorded, Tensor)), default=0.0
        )
        if difference > ulps:
            found[name] = difference
    return found


def residuals(tape: Tape) -> dict[Ref, float]:
    """‖recorded adjoint - sum over consumers of torch's own VJP of that node alone‖ / ‖the sum of absolute terms‖.

    What arrives at a node is what was recorded; a value without record gets the sum itself. Terms of an opaque custom
    Function are what its backward returned.
    """
    sums: dict[Ref, Tensor] = {tape.graph.output: torch.ones_like(tape.values[tape.graph.output.name])}
    sizes: dict[Ref, float] = {tape.graph.output: 1.0}
    for ref, share in (
        pair for application in tape.applications if application.opaque for pair in application.gradients.items()
    ):
        _add(sums, sizes, ref, share)
    active = active_values(tape.graph) | tape.adjoints.keys()
    for node in reversed(tape.graph.nodes):
        arriving = {ref: tape.adjoints.get(ref, sums.get(ref)) for ref in output_refs(node)}
        for ref, share in _vjp(node, tape, {ref: g for ref, g in arriving.items() if g is not None}, active):
            _add(sums, sizes, ref, share)
    return {
        ref: float((adjoint - sums.get(ref, torch.zeros_like(adjoint))).norm()) / max(sizes.get(ref, 0.0), 1e-30)
        for ref, adjoint in tape.adjoints.items()
    }


def wrong_gradients(tape: Tape, model: nn.Module) -> list[str]:
    """Parameters whose recorded gradient is not bitwise what `loss.backward()` left in `.grad`."""
    wrong = []
    for name, parameter in model.named_parameters():
        recorded = tape.adjoints.get(Ref(tape.graph.parameters[name].name)) if parameter.requires_grad else None
        expected = parameter.grad
        if expected is not None and expected.layout is not torch.strided:
            expected = expected.to_dense()
        same = recorded is None or not recorded.any() if expected is None else torch.equal(expected, recorded)
        if not same:
            wrong.append(name)
    return wrong


def _vjp(node: Node, tape: Tape, arriving: dict[Ref, Tensor], active: set[Ref]) -> Iterator[tuple[Ref, Tensor]]:
    if not any(g.any() for g in arriving.values()) or node.op is aten.detach.default:
        return
    inputs = {ref: value_of(ref, tape.values).detach() for ref in node.refs() if ref in active}
    inputs = {ref: x.requires_grad_() for ref, x in inputs.items() if x.is_floating_point() or x.is_complex()}
    with torch.enable_grad():
        if node.op is aten.copy.default:  # which torch does not differentiate
            outputs = [inputs[node.arguments["src"]].expand_as(value_of(node.arguments["self"], tape.values))]
        else:
            output = node.op(**{name: _resolved(a, inputs, tape) for name, a in node.arguments.items()})
            outputs = _items(output)
    pairs = [(y, arriving[ref]) for ref, y in zip(output_refs(node), outputs, strict=True) if ref in arriving]
    pairs = [(y, g.reshape(y.shape).to(y.dtype)) for y, g in pairs if y.requires_grad]
    if pairs and inputs:
        ys, gs = zip(*pairs, strict=True)
        shares = torch.autograd.grad(ys, list(inputs.values()), gs, allow_unused=True)
        yield from ((ref, share) for ref, share in zip(inputs, shares, strict=True) if share is not None)


def _resolved(argument: Any, inputs: dict[Ref, Tensor], tape: Tape) -> Any:
    if isinstance(argument, Ref):
        return inputs[argument] if argument in inputs else value_of(argument, tape.values)
    return [_resolved(item, inputs, tape) for item in argument] if isinstance(argument, tuple) else argument


def _add(sums: dict[Ref, Tensor], sizes: dict[Ref, float], ref: Ref, share: Tensor) -> None:
    sums[ref] = sums[ref] + share if ref in sums else share
    sizes[ref] = sizes.get(ref, 0.0) + float(share.norm())


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _ulps(ours: Tensor, recorded: Tensor) -> float:
    if ours.dtype != recorded.dtype or ours.shape != recorded.shape:
        return float("inf")
    if not recorded.is_floating_point() or recorded.numel() == 0:
        return 0.0 if torch.equal(ours, recorded) else float("inf")
    if torch.equal(ours.isfinite(), recorded.isfinite()):
        ours, recorded = ours[recorded.isfinite()], recorded[recorded.isfinite()]
        scale = float(recorded.abs().max()) if recorded.numel() else 0.0
        return float((ours - recorded).abs().max()) / (scale * torch.finfo(recorded.dtype).eps) if scale else 0.0
    return float("inf")
