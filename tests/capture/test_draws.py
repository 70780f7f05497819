"""Randomness is drawn once, with the user's own seed to the user's own masks, and can be drawn again."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from capture.graph_runs import Computed, assert_is_the_users_step, captured, eager, run_graph, squared
from chainrule.capture import capture
from chainrule.capture.eager import user_loss
from chainrule.capture.export import export
from chainrule.capture.hidden import off_sentence
from chainrule.capture.running import run
from chainrule.errors import CaptureError

X = torch.linspace(-1, 1, 24).view(6, 4)
aten = torch.ops.aten
GENERATOR = torch.Generator()

CASES = {
    "dropout": lambda m, x: F.dropout(m.linear(x), 0.4),
    "dropout twice": lambda m, x: F.dropout(F.dropout(m.linear(x), 0.4), 0.1) * m.weight,
    "dropout in place": lambda m, x: F.dropout(m.linear(x) + 1, 0.4, inplace=True),
    "dropout of a transposed tensor": lambda m, x: F.dropout(m.linear(x).t(), 0.4).t() * m.weight,
    "dropout of a slice": lambda m, x: F.dropout(m.linear(x)[:, 1:3], 0.4),
    "dropout of everything": lambda m, x: F.dropout(m.linear(x), 1.0) + m.weight,
    "channel dropout": lambda m, x: F.dropout2d(m.linear(x)[:, :, None, None].expand(6, 4, 2, 2), 0.4),
    "alpha dropout": lambda m, x: F.alpha_dropout(m.linear(x), 0.4, training=True),
    "dropout under autocast": lambda m, x: under_autocast(m, x),
    "noise": lambda m, x: m.linear(x) + torch.randn_like(x) * torch.rand(4) + torch.randn(6, 1),
    "uniform in place": lambda m, x: m.linear(x) * torch.empty(4).uniform_(1, 2) + torch.empty(4).normal_(),
    "integers": lambda m, x: m.linear(x)[torch.randperm(6)] * torch.randint(1, 5, (4,)),
    "bernoulli of a probability that is computed": lambda m, x: (
        m.linear(x) * torch.bernoulli(torch.sigmoid(m.linear(x)))
    ),
    "normal around a mean that is computed": lambda m, x: m.linear(x) + torch.normal(m.weight, 1.0),
    "multinomial": lambda m, x: m.linear(x)[torch.multinomial(torch.softmax(x.sum(1), 0), 3)],
    "gumbel softmax": lambda m, x: F.gumbel_softmax(m.linear(x), tau=0.7),
    "reparametrised normal": lambda m, x: torch.distributions.Normal(m.linear(x), 1.0).rsample(),
    "a draw that is not used": lambda m, x: unused_draw(m, x),
    "a generator of the user's": lambda m, x: m.linear(x) * torch.rand(4, generator=GENERATOR.manual_seed(3)),
    "attention": lambda m, x: attention(m, x),
    "causal attention": lambda m, x: attention(m, x, is_causal=True),
    "attention with a boolean mask": lambda m, x: attention(
        m, x, attn_mask=torch.eye(6).bool().roll(1, 0) | torch.eye(6).bool()
    ),
    "attention with a row that sees nothing": lambda m, x: attention(
        m, x, attn_mask=torch.arange(6)[:, None] > torch.arange(6)
    ),
    "attention with an additive mask": lambda m, x: attention(m, x, attn_mask=torch.linspace(-2, 1, 36).view(6, 6)),
    "attention with a scale": lambda m, x: attention(m, x, scale=0.3),
    "grouped attention": lambda m, x: grouped_attention(m, x),
}


def under_autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.dropout(m.linear(x), 0.4).float()


def unused_draw(m, x):
    hidden = m.linear(x)
    F.dropout(hidden, 0.5)
    return F.dropout(hidden, 0.5)


def attention(m, x, **settings):
    hidden = m.linear(x).view(1, 6, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(hidden, hidden * m.weight[:2], hidden, dropout_p=0.4, **settings)


def grouped_attention(m, x):
    hidden = m.linear(x).view(1, 6, 2, 2).transpose(1, 2)
    query = torch.cat([hidden, hidden * m.weight[:2]], 1)
    return F.scaled_dot_product_attention(query, hidden, hidden, dropout_p=0.4, enable_gqa=True)


@pytest.mark.parametrize("name", CASES)
def test_the_same_seed_gives_the_users_own_draws(name):
    graph = assert_is_the_users_step(Computed(CASES[name]), squared, X)

    draws = [leaf for leaf in graph.leaves.values() if leaf.kind == "random"]
    assert draws
    assert [] == [node.name for node in graph.nodes if torch.Tag.nondeterministic_seeded in node.op.tags]


def test_no_draw_is_left_inside_an_op():
    graph = captured(Computed(CASES["attention"]), squared, X)

    ops = [node.op for node in graph.nodes]
    assert aten.scaled_dot_product_attention.default not in ops
    assert aten.native_dropout.default not in ops
    assert [aten.softmax.int, aten.mul.Tensor, aten.matmul.default] == ops[ops.index(aten.softmax.int) :][:3]


def test_a_dropout_is_a_product_with_a_mask_that_is_already_divided():
    graph = captured(Computed(CASES["dropout"]), squared, X)

    (mask,) = [leaf for leaf in graph.leaves.values() if leaf.kind == "random"]
    (product,) = [node for node in graph.nodes if mask.name in {ref.name for ref in node.refs()}]
    assert aten.mul.Tensor is product.op
    assert {0.0, round(1 / 0.6, 6)} == {round(number, 6) for number in mask.value.unique().tolist()}


@pytest.mark.parametrize("name", ["dropout", "noise", "dropout of a transposed tensor", "attention"])
def test_a_recipe_draws_again_what_the_user_would_draw(name):
    model = Computed(CASES[name])
    graph = captured(model, squared, X, seed=4)
    constants = {leaf.name: leaf.value for leaf in graph.leaves.values()}

    torch.manual_seed(9)
    drawn = {n: run(leaf.recipe, constants) for n, leaf in graph.leaves.items() if leaf.recipe is not None}

    assert eager(model, squared, X, seed=9)[0].item() == run_graph(graph, drawn).item()


def test_recipes_refer_to_constants_alone():
    for compute in CASES.values():
        graph = captured(Computed(compute), squared, X)
        for leaf in graph.leaves.values():
            refs = list(leaf.recipe.refs()) if leaf.recipe is not None else []
            assert {"constant"} >= {graph.leaves[ref.name].kind for ref in refs}


@pytest.mark.parametrize("model", [nn.Dropout(0.5).eval(), nn.Dropout(0.0)])
def test_dropout_that_is_off_is_not_there(model):
    graph = captured(Computed(lambda m, x: model(m.linear(x))), squared, X)

    assert ["linear", "pow_1", "sum_1"] == [node.name for node in graph.nodes]


def test_a_draw_through_which_a_gradient_flows_is_refused():
    def forward(m, x):
        return torch.distributions.Gamma(m.weight.exp(), 1.0).rsample() * m.linear(x)

    with pytest.raises(CaptureError, match=r"test_draws\.py:\d+.*draws numbers that depend smoothly on its input"):
        capture(Computed(forward), squared, X)


def narrow_attention(m, x):
    hidden = m.linear(x).bfloat16().view(1, 6, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(hidden, hidden, hidden, dropout_p=0.4).float() * m.weight[:2]


def attention_under_autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return attention(m, x).float()


@pytest.mark.parametrize("forward", [narrow_attention, attention_under_autocast], ids=lambda forward: forward.__name__)
def test_attention_with_dropout_in_half_precision_is_computed_as_pytorch_does(forward):
    assert_is_the_users_step(Computed(forward), squared, X)


def test_the_users_loss_is_taken_with_hidden_dropout_off_as_the_graph_has_it():
    model = nn.LSTM(4, 3, num_layers=2, dropout=0.5)

    def loss(model, x):
        return model(x)[0].pow(2).sum()

    graph = captured(model, loss, X[:, None])

    assert user_loss(model, loss, X[:, None]).item() == run_graph(graph).item()
    assert 0.5 == model.dropout


def test_attention_that_runs_as_one_kernel_keeps_whole_with_its_dropout_off_and_the_graph_says_so():
    exported = export(
        Computed(CASES["attention"]).to("meta"), squared, X.to("meta")
    )  # as on a GPU: not the CPU's parts

    (kept,) = [node for node in exported.graph.nodes if node.target is aten.scaled_dot_product_attention.default]
    assert "dropout_p" not in kept.kwargs
    assert 0.0 == (kept.args[4] if len(kept.args) > 4 else 0.0)
    assert [off_sentence("scaled_dot_product_attention", 0.4)] == [*exported.notes]
