"""What an exported graph holds: formulas, names, modules, lines, leaves."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capture.graph_runs import Computed, assert_is_the_users_step, captured, run_graph, squared
from chainrule.autodiff.evaluate import evaluate, value_of
from chainrule.capture import capture
from chainrule.graph import Ref, Spec

aten = torch.ops.aten
X = torch.linspace(-1, 1, 20).view(5, 4)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x_BTD: Tensor) -> Tensor:
        b, t, d = x_BTD.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.first(x_BTD)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.mix(mixed.transpose(1, 2).reshape(b, t, d))
        return x_BTD + self.down(F.gelu(self.up(self.second(x_BTD))))


class SmallGPT(nn.Module):
    def __init__(self, vocabulary: int = 11, width: int = 8, tokens: int = 6) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, 2) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.token(ids_BT) + self.position(torch.arange(ids_BT.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD))


def next_token(model: nn.Module, ids_BT: Tensor) -> Tensor:
    scores_BTV = model(ids_BT[:, :-1])
    return F.cross_entropy(scores_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())


IDS = torch.arange(14).view(2, 7) % 11


def test_a_small_gpt_stays_whole_formulas():
    graph = assert_is_the_users_step(SmallGPT(), next_token, IDS)

    kinds = {str(node.op) for node in graph.nodes}
    assert "export" == graph.origin
    assert {"aten.linear.default", "aten.layer_norm.default", "aten.gelu.default", "aten.embedding.default"} < kinds
    assert {"aten.scaled_dot_product_attention.default", "aten.cross_entropy_loss.default"} < kinds


def test_every_node_says_its_module_and_the_line_of_this_file():
    graph = capture(SmallGPT(), next_token, IDS)
    lines = Path(__file__).read_text().splitlines()

    assert [] == [node.name for node in graph.nodes if node.source is None]
    assert {__file__} == {node.source.file for node in graph.nodes}
    assert all(lines[node.source.line - 1].strip() == node.source.code for node in graph.nodes)
    gelu = [node for node in graph.nodes if node.op is aten.gelu.default]
    assert ["blocks.0", "blocks.1"] == [node.module for node in gelu]
    assert (("", "SmallGPT"), ("blocks.1", "Block")) == gelu[1].stack
    norm = next(node for node in graph.nodes if node.op is aten.layer_norm.default)
    assert "blocks.0.first.layer_norm" == norm.where
    assert "self.qkv(self.first(x_BTD))" in norm.source.code  # the line that calls torch's LayerNorm, not torch's own


def test_the_loss_function_and_its_helpers_have_lines_too():
    graph = capture(SmallGPT(), next_token, IDS)

    entropy = graph.node(graph.output.name)
    start = inspect.getsourcelines(next_token)[1]
    assert (start + 2, "") == (entropy.source.line, entropy.module)


def test_arguments_go_by_the_names_of_the_schema_with_defaults_and_the_nodes_run_by_them():
    graph = capture(SmallGPT(), next_token, IDS)

    attention = next(node for node in graph.nodes if node.op is aten.scaled_dot_product_attention.default)
    assert ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"] == [
        *attention.arguments
    ]
    assert (None, 0.0, True) == tuple(attention.arguments[name] for name in ("attn_mask", "dropout_p", "is_causal"))


def test_an_op_with_several_outputs_is_one_node_and_no_getitem_is_left():
    graph = capture(SmallGPT(), next_token, IDS)

    split = next(node for node in graph.nodes if node.op.overloadpacket in (aten.split, aten.chunk))
    used = {ref for node in graph.nodes for ref in node.refs() if ref.name == split.name}
    assert {Ref(split.name, 0), Ref(split.name, 1), Ref(split.name, 2)} == used
    assert (Spec((2, 6, 8), torch.float32),) * 3 == split.spec
    assert [] == [node.name for node in graph.nodes if "getitem" in node.name]


def test_tied_parameters_are_one_leaf_with_all_their_paths():
    graph = capture(SmallGPT(), next_token, IDS)

    tied = [leaf for leaf in graph.leaves.values() if len(leaf.paths) > 1]
    assert [("token.weight", "head.weight")] == [leaf.paths for leaf in tied]
    assert 2 == sum(ref.name == tied[0].name for node in graph.nodes for ref in node.refs())


def test_frozen_and_unused_parameters_are_leaves():
    model = Computed(lambda m, x: m.linear(x))
    model.linear.bias.requires_grad_(False)

    graph = capture(model, squared, X)

    assert {"linear.weight": True, "linear.bias": False, "weight": True} == {
        leaf.path: leaf.trainable for leaf in graph.leaves.values() if leaf.kind == "parameter"
    }
    assert {"linear.weight", "weight"} == graph.parameters.keys()


def test_buffers_that_forward_changes_are_known_with_their_new_values():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    graph = assert_is_the_users_step(model, squared, X)

    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} == graph.mutated.keys()
    values = evaluate(graph)
    new = {path: value_of(ref, values) for path, ref in graph.mutated.items()}
    assert torch.equal(model[1].running_mean, new["1.running_mean"])  # the eager step moved the model's own
    assert torch.equal(model[1].running_var, new["1.running_var"])
    assert 1 == new["1.num_batches_tracked"].item()


def test_a_tensor_that_code_made_is_a_constant():
    target = torch.full((4,), 0.7)

    graph = assert_is_the_users_step(
        Computed(lambda m, x: m.linear(x)), lambda m, x: F.mse_loss(m(x), target.expand(5, 4)), X
    )

    assert ["constant"] == [leaf.kind for leaf in graph.leaves.values() if torch.equal(leaf.value, target)]


def test_a_tensor_that_requires_grad_and_is_no_parameter_is_said():
    temperature = torch.tensor(0.5, requires_grad=True)

    graph = capture(Computed(lambda m, x: m.linear(x) * temperature), squared, X)

    assert "temperature" not in graph.parameters
    assert ["requires grad and is no parameter" in note for note in graph.notes] == [True]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) * self.scale).pow(2).sum()


def test_a_loss_with_parameters_of_its_own_has_them_under_its_own_path():
    graph = capture(Computed(lambda m, x: m.linear(x)), Scaled(), X)

    assert "(loss).scale" in graph.parameters
    assert "(loss)" == graph.node(graph.output.name).module


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return twice_squared(x) / 2

    @staticmethod
    def backward(ctx, g):
        return g * 2 * ctx.saved_tensors[0]


def twice_squared(x: Tensor) -> Tensor:
    return x * x + x * x


APPLY = Square.apply  # bound before anything could be patched


def test_nodes_of_a_custom_functions_forward_carry_its_name_and_are_inlined():
    graph = assert_is_the_users_step(Computed(lambda m, x: APPLY(m.linear(x)).tanh()), squared, X)

    inside = [node for node in graph.nodes if node.function]
    assert {"Square"} == {node.function for node in inside}
    assert ["mul", "mul", "add", "div"] == [node.op._opname for node in inside]
    assert "return x * x + x * x" == inside[0].source.code
    assert [""] == [node.function for node in graph.nodes if node.op is aten.tanh.default]


def test_activation_checkpointing_is_no_custom_function():
    def forward(m, x):
        return torch.utils.checkpoint.checkpoint(lambda h: torch.tanh(m.linear(h)), x, use_reentrant=True) * m.weight

    graph = assert_is_the_users_step(Computed(forward), squared, X.clone().requires_grad_())

    assert {""} == {node.function for node in graph.nodes}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_stay_one_op(kind):
    def loss(model, x):
        return model(x)[0].pow(2).sum()

    graph = assert_is_the_users_step(kind(4, 3, num_layers=2, batch_first=True), loss, torch.randn(2, 5, 4))

    assert {"lstm", "gru", "rnn_tanh"} & {node.op._opname for node in graph.nodes}
    assert () == graph.notes


def test_dropout_inside_a_recurrent_layer_is_off_and_the_graph_says_so():
    def loss(model, x):
        return model(x)[0].pow(2).sum()

    model = nn.LSTM(4, 3, num_layers=2, dropout=0.3)
    graph = captured(model, loss, torch.ones(5, 2, 4))

    (lstm,) = [node for node in graph.nodes if node.op is aten.lstm.input]
    assert 0.0 == lstm.arguments["dropout"]
    assert ["lstm: its dropout (p=0.3) is drawn inside one op where it cannot be held fixed; it is off here."] == [
        *graph.notes
    ]
    model.dropout = 0.0
    assert loss(model, torch.ones(5, 2, 4)).item() == run_graph(graph).item()


def test_autocast_is_written_out_as_casts_at_the_users_lines():
    def forward(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = m.linear(x)
        return hidden.float() * m.weight

    graph = assert_is_the_users_step(Computed(forward), squared, X)

    casts = [node for node in graph.nodes if node.op is aten._to_copy.default]
    assert 3 <= sum(node.arguments["dtype"] is torch.bfloat16 for node in casts)
    assert {"hidden = m.linear(x)", "return hidden.float() * m.weight"} == {node.source.code for node in casts}


def test_changes_in_place_become_formulas():
    def forward(m, x):
        hidden = m.linear(x)
        hidden[:, 0] = 1.0
        hidden.mul_(m.weight).relu_()
        return hidden

    graph = assert_is_the_users_step(Computed(forward), squared, X)

    assert [] == [str(node.op) for node in graph.nodes if node.op._schema.is_mutable]


def test_a_loss_of_shape_one_is_made_a_scalar():
    graph = capture(Computed(lambda m, x: m.linear(x)), lambda m, x: m(x).sum().view(1), X)

    assert () == run_graph(graph).shape


def test_a_compiled_model_is_captured_by_its_own_names():
    graph = capture(torch.compile(Computed(lambda m, x: m.linear(x)), backend="eager"), squared, X)

    assert {"weight", "linear.weight", "linear.bias"} == graph.parameters.keys()
    assert "export" == graph.origin


def test_parameters_share_the_models_memory_and_batch_and_buffers_do_not():
    model, batch = Computed(lambda m, x: m.linear(x) * m.mean), X.clone()

    graph = capture(model, squared, batch)

    share = {leaf.path or "batch": leaf.value.data_ptr() for leaf in graph.leaves.values()}
    assert model.weight.data_ptr() == share["weight"]
    assert model.mean.data_ptr() != share["mean"]
    assert batch.data_ptr() != share["batch"]
