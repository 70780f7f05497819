"""Forward and our backward as one traced function: same gradients, at other values of the leaves too."""

from __future__ import annotations

import torch

from chainrule.autodiff import compiled, value_and_grad
from chainrule.capture import capture
from small_models import SmallGPT, next_token_loss, token_batch


def test_the_compiled_function_gives_the_engines_loss_and_gradients():
    graph = capture(SmallGPT(), next_token_loss, token_batch())
    # aot_eager runs the traced code as it stands: the trace is ours, what inductor makes of it is torch's
    run = compiled(graph, backend="aot_eager")
    moved = {leaf.name: leaf.value + 0.01 for leaf in graph.parameters.values()}

    for leaves in ({}, moved):
        loss, gradients = run(leaves)
        expected_loss, expected = value_and_grad(graph, leaves)
        torch.testing.assert_close(loss, expected_loss)
        assert expected.keys() == gradients.keys()
        for path, gradient in expected.items():
            torch.testing.assert_close(gradients[path], gradient, rtol=1e-4, atol=1e-6)
