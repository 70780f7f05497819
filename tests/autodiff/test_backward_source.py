"""The backward as Python: it runs by itself, gives the same gradients, and prints equal modules once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from chainrule.autodiff import backward_source, value_and_grad
from chainrule.capture import capture, promote
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch

CASES = {
    "gpt": lambda: (SmallGPT(layers=3), next_token_loss, token_batch()),
    "mlp": lambda: (MLP((5, 8, 8, 8, 3)), class_loss, (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))),
    "cnn": lambda: (BatchNormCNN(), class_loss, (torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 3]))),
}


@pytest.fixture(params=CASES)
def graph(request):
    return promote(capture(*CASES[request.param]()))


def test_executing_the_text_reproduces_loss_and_gradients(graph):
    namespace: dict = {}
    exec(backward_source(graph), namespace)

    loss, gradients = namespace["value_and_grad"]({leaf.path: leaf.value for leaf in graph.leaves.values()})

    expected_loss, expected = value_and_grad(graph)
    assert expected_loss == loss
    assert expected.keys() == gradients.keys()
    for path, gradient in expected.items():
        torch.testing.assert_close(gradients[path], gradient, rtol=1e-13, atol=1e-16)


def test_the_text_needs_nothing_but_torch(graph, tmp_path):
    torch.save({leaf.path: leaf.value for leaf in graph.leaves.values()}, tmp_path / "leaves.pt")
    program = backward_source(graph) + (
        "\n\nimport sys\n"
        "loss, gradients = value_and_grad(torch.load(sys.argv[1]))\n"
        "assert not any(name.split('.')[0] == 'chainrule' for name in sys.modules)\n"
        "print(float(loss), len(gradients))\n"
    )
    (tmp_path / "backward.py").write_text(program, encoding="utf-8")

    run = subprocess.run(
        [sys.executable, tmp_path / "backward.py", tmp_path / "leaves.pt"], capture_output=True, text=True, check=False
    )

    assert "" == run.stderr
    assert str(len(graph.parameters)) == run.stdout.split()[1]


def test_equal_modules_are_printed_once_and_looped():
    text = backward_source(promote(capture(*CASES["gpt"]())))

    assert 1 == text.count("def block_") // 2
    assert "# --- blocks.0 ... blocks.2" in text
    assert "for prefix in ['blocks.0.', 'blocks.1.', 'blocks.2.']:" in text


def test_each_forward_line_has_its_formula_and_the_users_line():
    text = backward_source(promote(capture(*CASES["gpt"]())))

    assert "small_models.py:" in text
    assert "self.down(self.activation(self.up(self.norm_2(x_BTD))))" in text
    assert "y = input @ weightᵀ + bias" in text
