"""no_grad, detach and their relatives cut the graph where they cut autograd's, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from capture.graph_runs import Computed, assert_is_the_users_step, squared

X = torch.linspace(-1, 1, 20).view(5, 4)
aten = torch.ops.aten


def detach(m, x):
    return m.linear(x) * m.linear(x).detach()


def block(m, x):
    with torch.no_grad():
        scale = m.linear(x).tanh()
    return m.linear(x) * scale


@torch.no_grad()
def frozen_scale(m, x):
    return m.linear(x).tanh()


def decorator(m, x):
    return m.linear(x) * frozen_scale(m, x)


def block_inside_autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = m.linear(x)
        with torch.no_grad():
            scale = m.linear(hidden).tanh()
    return hidden.float() * scale


def autocast_inside_block(m, x):
    with torch.no_grad():
        scale = m.linear(x) * 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scale = scale + m.linear(x)
    return m.linear(x) * scale


def gradients_again_inside(m, x):
    with torch.no_grad():
        hidden = m.linear(x)
        with torch.enable_grad():
            known = hidden * m.weight
        doubled = known * 2
    return known + doubled + hidden


def straight_through(m, x):
    hidden = m.linear(x)
    return hidden + (torch.sign(hidden) - hidden).detach()


def moving_average(m, x):
    hidden = m.linear(x)
    with torch.no_grad():
        m.mean.mul_(0.9).add_(hidden.mean(0), alpha=0.1)
    return hidden * m.mean


def inference(m, x):
    with torch.inference_mode():
        scale = m.linear(x)
    return m.linear(x) * scale.clone()


def two_outputs(m, x):
    with torch.no_grad():
        low, high = m.linear(x).split(2, -1)
    return m.linear(x)[:, :2] * low + high


def inside_a_checkpoint(m, x):
    def inner(h):
        with torch.no_grad():
            scale = torch.tanh(m.linear(h))
        return torch.tanh(m.linear(h)) * scale

    return checkpoint(inner, x, use_reentrant=False) * m.weight


CASES = [
    detach, block, decorator, block_inside_autocast, autocast_inside_block, gradients_again_inside, straight_through,
    moving_average, inference, two_outputs, inside_a_checkpoint,
]  # fmt: skip


@pytest.mark.parametrize("forward", CASES, ids=lambda forward: forward.__name__)
def test_the_graph_has_autograds_gradient(forward):
    graph = assert_is_the_users_step(Computed(forward), squared, X)

    assert "export" == graph.origin
    assert () == graph.notes


def in_place(m, x):
    hidden = m.linear(x)
    with torch.no_grad():
        hidden.mul_(2)
    return hidden * m.weight


def clamped_parameter(m, x):
    with torch.no_grad():
        m.weight.clamp_(-0.5, 0.5)
    return m.linear(x) * m.weight


@pytest.mark.parametrize("forward", [in_place, clamped_parameter], ids=lambda forward: forward.__name__)
def test_a_change_in_place_that_autograd_does_not_see_is_passed_by_and_said(forward):
    graph = assert_is_the_users_step(Computed(forward), squared, X)

    (note,) = graph.notes
    assert note.startswith(__file__)
    assert "changed in place under no_grad; autograd passes the gradient by this change" in note


def test_a_block_that_no_gradient_could_pass_needs_no_detach():
    def forward(m, x):
        with torch.no_grad():
            positions = torch.arange(4) * 2.0
        return m.linear(x) + positions

    graph = assert_is_the_users_step(Computed(forward), squared, X)

    assert [] == [node.name for node in graph.nodes if node.op is aten.detach.default]
