"""The tape of plain models: it computes what the user's run computed, and holds the gradients that the user's run made."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import small_models
from capture.tape_checks import disagreements, residuals, wrong_gradients
from chainrule.capture.tape import record
from chainrule.errors import SetupError
from chainrule.graph import Ref

aten = torch.ops.aten


class LSTMTagger(nn.Module):
    def __init__(self, cell: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.cell = cell(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.cell(self.embedding(tokens_BT))[0])


MODELS = {
    "gpt": lambda: (small_models.SmallGPT(), small_models.next_token_loss, small_models.token_batch()),
    "mlp": lambda: (small_models.MLP(), small_models.squared_loss, (torch.randn(4, 5), torch.randn(4, 3))),
    "batch_norm_cnn": lambda: (
        small_models.BatchNormCNN(),
        small_models.class_loss,
        (torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 4, 2])),
    ),
    "lstm": lambda: (LSTMTagger(), small_models.next_token_loss, small_models.token_batch(20)),
    "gru": lambda: (LSTMTagger(nn.GRU), small_models.next_token_loss, small_models.token_batch(20)),
}
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


@every_model
def test_evaluating_the_graph_reproduces_every_recorded_value(build):
    assert {} == disagreements(record(*build()))


@every_model
def test_recorded_parameter_gradients_are_bitwise_those_of_backward(build):
    model, loss, batch = build()
    tape = record(model, loss, batch)
    model.load_state_dict(model.state_dict())
    loss(model, batch).backward()
    assert [] == wrong_gradients(tape, model)


@every_model
def test_every_recorded_adjoint_is_what_its_consumers_hand_down(build):
    tape = record(*build())
    assert len(tape.adjoints) > len(tape.graph.parameters)
    assert max(residuals(tape).values()) < 1e-5


@every_model
def test_in_float64_the_same_run_agrees_to_float64(build):
    tape = record(*build(), dtype=torch.float64)
    floats = {t.dtype for t in tape.adjoints.values()} | {leaf.value.dtype for leaf in tape.graph.parameters.values()}
    assert {torch.float64} == floats
    assert max(residuals(tape).values()) < 1e-13


def test_recorded_adjoints_are_those_of_retain_grad():
    kept = {}

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        first = model.layers[1](model.layers[0](x))
        second = first * first + first  # two uses: the adjoint is their sum
        kept.update(first=first, second=second)
        if first.requires_grad:
            first.retain_grad()
            second.retain_grad()
        return F.mse_loss(second[:, :3], y)

    batch = torch.randn(4, 5), torch.randn(4, 3)
    model = small_models.MLP()
    tape = record(model, loss, batch)
    loss(model, batch).backward()
    assert torch.equal(kept["first"].grad, tape.adjoints[Ref("tanh")])
    assert torch.equal(kept["second"].grad, tape.adjoints[Ref("add")])


def test_unit_formulas_stay_whole_and_carry_module_and_line():
    tape = record(*MODELS["gpt"]())
    ops = {node.op for node in tape.graph.nodes}
    assert ops >= {
        aten.linear.default,
        aten.layer_norm.default,
        aten.scaled_dot_product_attention.default,
        aten.gelu.default,
        aten.cross_entropy_loss.default,
    }
    gelu = next(node for node in tape.graph.nodes if node.op is aten.gelu.default)
    assert (("", "SmallGPT"), ("blocks.0", "Block"), ("blocks.0.activation", "GELU")) == gelu.stack
    assert gelu.source is not None
    assert gelu.source.file == small_models.__file__
    assert "self.activation(self.up(" in gelu.source.code


def test_batch_norm_says_what_becomes_of_its_running_statistics():
    model, loss, batch = MODELS["batch_norm_cnn"]()
    tape = record(model, loss, batch)
    loss(model, batch)
    expected = dict(model.named_buffers())
    assert set(expected) == set(tape.graph.mutated)
    for name, ref in tape.graph.mutated.items():
        value = tape.values[ref.name]
        assert torch.equal(expected[name], value if ref.index is None else value[ref.index])
    assert 0 == int(tape.values["b_norm_1_num_batches_tracked"])


def test_batch_norm_in_eval_mode_and_without_statistics():
    model = nn.Sequential(nn.BatchNorm1d(5).eval(), nn.BatchNorm1d(5, track_running_stats=False))
    tape = record(model, lambda m, x: m(x).pow(3).sum(), torch.randn(6, 5))
    ops = [node.op for node in tape.graph.nodes[:2]]
    assert [aten._native_batch_norm_legit_no_training.default, aten._native_batch_norm_legit.no_stats] == ops
    assert {} == disagreements(tape)
    assert {} == tape.graph.mutated


def test_tied_parameters_are_one_leaf_with_all_its_names():
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    model["head"].weight = model["embed"].weight
    tokens = torch.tensor([1, 2, 3])
    loss = lambda m, x: F.cross_entropy(m["head"](m["embed"](x)), x)  # noqa: E731
    tape = record(model, loss, tokens)
    loss(model, tokens).backward()
    (leaf,) = tape.graph.parameters.values()
    assert ("embed.weight", "head.weight") == leaf.paths
    assert torch.equal(model["embed"].weight.grad, tape.adjoints[Ref(leaf.name)])


def test_a_sparse_gradient_is_recorded_dense():
    model = nn.Embedding(7, 3, sparse=True)
    tape = record(model, lambda m, x: m(x).pow(2).sum(), torch.tensor([1, 1, 5]))
    assert torch.strided == tape.adjoints[Ref("p_weight")].layout
    assert max(residuals(tape).values()) < 1e-5


def test_calls_that_hand_back_their_input_are_no_nodes():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y = model(x).contiguous().to(torch.float32).view_as(model(x)).float()
        return F.dropout(y, 0.5, training=False).sum()

    tape = record(nn.Linear(3, 2), loss, torch.randn(4, 3))
    assert ["linear", "view", "sum"] == [node.name for node in tape.graph.nodes]
    assert max(residuals(tape).values()) < 1e-6


def test_a_path_that_nothing_comes_back_on_has_the_adjoint_zero():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    tape = record(model, lambda m, x: m[0](x).sum() + 0 * float(m[1](x).sum()), torch.randn(4, 3))
    assert not tape.adjoints[Ref("p_1_weight")].any()
    assert tape.adjoints[Ref("p_0_weight")].any()


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda m, x: m(x), "has shape"),
        (lambda m, x: m(x).sum().item(), "returned a float"),
        (lambda m, x: m(x).sum().detach(), "depends on no parameter"),
        (lambda m, x: m(x).argmax(), "has no derivative"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused_in_plain_words(loss, words):
    with pytest.raises(SetupError, match=words):
        record(nn.Linear(3, 2), loss, torch.randn(4, 3))


def test_an_error_of_the_users_own_passes_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        record(nn.Linear(3, 2), lambda m, x: m(x).sum(), torch.randn(4, 5))
