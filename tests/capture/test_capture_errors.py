"""What cannot be captured is refused in words: what was seen, at which line, and what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capture.graph_runs import Computed, assert_is_the_users_step, squared
from chainrule.capture import capture
from chainrule.errors import CaptureError, SetupError

X = torch.linspace(-1, 1, 20).view(5, 4)


def linear(m, x):
    return m.linear(x)


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(SetupError, match=r"the model is a function, expected a torch\.nn\.Module"):
        capture(linear, squared, X)


def test_a_loss_that_is_no_function_is_refused():
    with pytest.raises(SetupError, match=r"the loss is a Tensor, expected a function loss\(model, batch\)"):
        capture(Computed(linear), X, X)


def test_a_vector_loss_is_refused():
    with pytest.raises(SetupError, match=r"loss\(model, batch\) has shape \(5, 4\), expected a scalar: reduce it with"):
        capture(Computed(linear), lambda m, x: m(x), X)


def test_a_loss_that_is_a_number_is_refused():
    with pytest.raises(SetupError, match="returned a float, expected a scalar tensor"):
        capture(Computed(linear), lambda m, x: 3.0, X)


def test_a_model_output_in_place_of_its_loss_is_refused_with_the_way_out():
    class Output:
        loss = torch.tensor(1.0)

    with pytest.raises(SetupError, match=r"returned a Output, expected a scalar tensor; return its \.loss"):
        capture(Computed(linear), lambda m, x: Output(), X)


def test_an_integer_loss_is_refused():
    with pytest.raises(SetupError, match=r"is torch\.int64, expected a floating tensor"):
        capture(Computed(linear), lambda m, x: m(x).argmax(), X)


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(SetupError, match="no parameter of the model requires grad"):
        capture(Computed(linear).requires_grad_(False), squared, X)


def test_a_lazy_module_is_refused():
    with pytest.raises(SetupError, match=r"0\.weight has no shape yet .* run the model once"):
        capture(nn.Sequential(nn.LazyLinear(3)), squared, X)


@torch.no_grad()
def without_gradients(m, x):
    return m(x).sum()


@pytest.mark.parametrize(
    "loss",
    [lambda m, x: m(x).sum().detach(), without_gradients, lambda m, x: x.sum(), lambda m, x: (m(x) > 0).float().sum()],
    ids=["detached", "no_grad", "of the batch alone", "of a comparison"],
)
def test_a_loss_that_depends_on_no_parameter_is_refused_with_its_line(loss):
    with pytest.raises(
        SetupError, match=r"the loss \(.*test_capture_errors\.py:\d+: .*depends on no trainable parameter"
    ):
        capture(Computed(linear), loss, X)


def test_an_error_of_the_users_own_is_shown_with_its_line():
    with pytest.raises(
        SetupError, match=r"fails by itself at .*test_capture_errors\.py:\d+: .*\n.*cannot be multiplied"
    ):
        capture(Computed(lambda m, x: m.linear(x[:, :2])), squared, X)


def test_a_branch_on_a_value_goes_to_the_tape_and_the_graph_says_why():
    def forward(m, x):
        hidden = m.linear(x)
        if hidden.sum() > 1e6:
            return hidden * 2
        return hidden

    graph = assert_is_the_users_step(Computed(forward), squared, X)

    assert "tape" == graph.origin
    (note,) = graph.notes
    assert note.startswith("Recorded from an eager run, not exported: ")
    assert "if hidden.sum() > 1e6:" in note
    assert "depends on a tensor's value" in note


def test_a_shape_that_depends_on_values_goes_to_the_tape():
    graph = assert_is_the_users_step(Computed(lambda m, x: m.linear(x)[x > 0]), squared, X)

    assert "tape" == graph.origin
    assert "a shape depends on a tensor's values" in graph.notes[-1]


def test_what_neither_can_follow_names_both_reasons():
    def forward(m, x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(m.linear(x).tanh().sum(), x, create_graph=True)
        return slope + m.weight

    with pytest.raises(CaptureError, match=r"(?s)cannot be captured: .*nor recorded from an eager run: .*create_graph"):
        capture(Computed(forward), squared, X)


def test_a_number_that_is_only_logged_does_no_harm():
    def forward(m, x):
        hidden = m.linear(x)
        m.logged = hidden.mean().item()
        return hidden

    assert "export" == assert_is_the_users_step(Computed(forward), squared, X).origin


def test_capturing_prints_nothing(capfd):
    def forward(m, x):
        hidden = m.linear(x)
        print("shape", hidden.shape)
        return hidden if hidden.sum() < 1e6 else hidden * 2

    capture(Computed(forward), squared, X)

    assert "fake" not in str(capfd.readouterr()).lower()
