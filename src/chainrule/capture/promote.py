"""True float64: every cast and every constant made *inside* the model rewritten, which `model.double()` leaves behind.

`LlamaForCausalLM(...).double()` still casts to float32 in each norm, so its loss carries float32 noise and a difference
quotient of it is all noise. In the promoted graph nothing is narrower than the wanted dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from chainrule.capture.nodes import spec_of
from chainrule.capture.running import run
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Graph, Leaf, Node, Ref, Spec, Value, bind_arguments, schema_defaults

aten = torch.ops.aten
_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


def promote(graph: Graph, dtype: torch.dtype = torch.float64) -> Graph:
    """The same formulas in another floating dtype: leaves cast, dtype arguments rewritten, specs recomputed.

    Integers and bools stay. Numbers such as the -3.4e38 of a mask stay too: they are finite in every wider dtype.
    Raises CaptureError if a node reinterprets bits (`view(dtype)`), which has no counterpart in another dtype.
    """
    leaves = {name: _cast_leaf(leaf, dtype) for name, leaf in graph.leaves.items()}
    nodes: list[Node] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        values: dict[str, Value] = {name: mode.from_tensor(leaf.value) for name, leaf in leaves.items()}
        for node in graph.nodes:
            for new in _promoted(node, values, dtype):
                output = _fake_output(new, values, dtype)
                for last in _widened(new, output, dtype):
                    values[last.name] = _fake_output(last, values, dtype)
                    nodes.append(replace(last, spec=spec_of(values[last.name])))
    return replace(graph, leaves=leaves, nodes=tuple(nodes))


def promoted_dtype(old: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """`dtype` for a floating dtype, its complex partner for a complex one, and any other dtype as it is."""
    if old.is_floating_point:
        return dtype
    return _COMPLEX.get(dtype, old) if old.is_complex else old


def _widened(node: Node, output: Value, dtype: torch.dtype) -> list[Node]:
    """The node, and a cast after it where it still is narrow: an op that makes the default dtype of no argument."""
    if not isinstance(output, Tensor) or output.dtype == promoted_dtype(output.dtype, dtype):
        return [node]
    narrow = f"{node.name}_narrow"
    arguments = bind_arguments(aten._to_copy.default, (Ref(narrow),), {"dtype": promoted_dtype(output.dtype, dtype)})
    return [replace(node, name=narrow), replace(node, op=aten._to_copy.default, arguments=arguments)]


def _fake_output(node: Node, values: Mapping[str, Value], dtype: torch.dtype) -> Value:
    try:
        return run(node, values)
    except DynamicOutputShapeException:  # nonzero and its like: the shape is the one that was recorded
        specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
        outputs = [spec and torch.empty(spec.shape, dtype=promoted_dtype(spec.dtype, dtype)) for spec in specs]
        return outputs[0] if isinstance(node.spec, Spec) else tuple(outputs)


def _cast_leaf(leaf: Leaf, dtype: torch.dtype) -> Leaf:
    value = leaf.value.to(promoted_dtype(leaf.value.dtype, dtype))
    recipe = leaf.recipe and replace(leaf.recipe, arguments=_rewritten(leaf.recipe.arguments, dtype))
    return replace(leaf, value=value, recipe=recipe)


def _rewritten(arguments: Mapping[str, Argument], dtype: torch.dtype) -> dict[str, Argument]:
    return {
        name: promoted_dtype(value, dtype) if isinstance(value, torch.dtype) else value
        for name, value in arguments.items()
    }


def _promoted(node: Node, values: Mapping[str, Value], dtype: torch.dtype) -> list[Node]:
    """The node in the new dtype, after casts of integer arguments that would otherwise become float32 inside the op."""
    if node.op is aten.view.dtype:
        raise CaptureError(f"{node.source or node.where}: view({node.arguments['dtype']}) reads the bits of a tensor")
    new = replace(node, arguments=_rewritten(node.arguments, dtype))
    wanted = _floating_output(node)
    if wanted is None or any(_is_floating(values, ref) for ref in node.refs()):
        return [new]
    names = {name for name, _ in schema_defaults(node.op)}
    if "dtype" in names:
        return [replace(new, arguments={**new.arguments, "dtype": promoted_dtype(wanted, dtype)})]
    if node.op is aten.where.Scalar:
        return _where_of_numbers(new, promoted_dtype(wanted, dtype))
    return _with_casts(new, promoted_dtype(wanted, dtype))


def _where_of_numbers(node: Node, dtype: torch.dtype) -> list[Node]:
    """where(condition, 1.1, 0.3) has the default dtype; with one of the numbers as a tensor it has that tensor's."""
    number = replace(
        node,
        name=f"{node.name}_self",
        op=aten.scalar_tensor.default,
        arguments=bind_arguments(aten.scalar_tensor.default, (node.arguments["self"],), {"dtype": dtype}),
    )
    arguments = {**node.arguments, "self": Ref(number.name)}
    return [number, replace(node, op=aten.where.ScalarOther, arguments=arguments)]


def _floating_output(node: Node) -> torch.dtype | None:
    """The dtype of the node's first floating or complex output."""
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    return next((s.dtype for s in specs if s and (s.dtype.is_floating_point or s.dtype.is_complex)), None)


def _is_floating(values: Mapping[str, Value], ref: Ref) -> bool:
    value = values[ref.name] if ref.index is None else values[ref.name][ref.index]
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _with_casts(node: Node, dtype: torch.dtype) -> list[Node]:
    """int / int, sqrt(int), int * 0.5: PyTorch computes these in the default dtype; cast the integers first instead."""
    casts, arguments = [], dict(node.arguments)
    for name, value in node.arguments.items():
        if isinstance(value, Ref) and name not in ("condition", "mask", "indices", "index"):
            cast = replace(
                node,
                name=f"{node.name}_{name}_cast",
                op=aten._to_copy.default,
                arguments=bind_arguments(aten._to_copy.default, (value,), {"dtype": dtype}),
            )
            casts.append(cast)
            arguments[name] = Ref(cast.name)
    return [*casts, replace(node, arguments=arguments)]
