"""What export cannot follow, and what hides: branches, odd batches, randomness, autocast, foreign tensors, transforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from capture.tape_checks import disagreements, residuals, wrong_gradients
from chainrule.autodiff.evaluate import evaluate, loss_of
from chainrule.capture.binding import bind
from chainrule.capture.promote import promote
from chainrule.capture.running import run
from chainrule.capture.tape import capture_by_tape, record
from chainrule.errors import CaptureError
from chainrule.graph import Ref

aten = torch.ops.aten
X = torch.linspace(-1, 1, 20).reshape(5, 4)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 8)


def healthy(loss, model: nn.Module | None = None, batch=X) -> None:
    """Forward, gradients and adjoints of the tape are those of the user's run."""
    model = linear() if model is None else model
    torch.manual_seed(7)
    tape = record(model, loss, batch)
    assert {} == disagreements(tape)
    assert max(residuals(tape).values()) < 1e-5
    torch.manual_seed(7)
    loss(model, batch).backward()
    assert [] == wrong_gradients(tape, model)


def test_a_branch_on_a_value_is_recorded_as_it_was_taken():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y = model(x)
        while y.abs().sum() > 1:
            y = y * 0.5
        if y.sum().item() > 0:
            return y.sin().sum()
        return y[y > 0].exp().sum() - y.cos().sum()

    healthy(loss)
    graph = capture_by_tape(linear(), loss, X)
    assert "tape" == graph.origin
    assert loss_of(graph, evaluate(graph)) == loss(linear(), X)


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: dict[str, list[Tensor]]
    weight: float


class Assorted(nn.Module):
    """Layers that write to statistics, weights or memory where their schema does not say so, or that C++ composes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.rnn, self.cell = nn.Linear(4, 4), nn.RNN(4, 3, nonlinearity="relu"), nn.LSTMCell(3, 3)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.1)
        self.instance = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
        self.group, self.embedding = nn.GroupNorm(2, 4), nn.Embedding(5, 4, max_norm=1.0)
        self.bag, self.prelu, self.rrelu = nn.EmbeddingBag(5, 4, mode="max"), nn.PReLU(), nn.RReLU().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        steps, _ = self.rnn(y[:, None])
        h, c = self.cell(steps[:, 0])
        h, c = self.cell(h, (h, c))
        mixed, _ = self.attention(y, y, y)
        normed = self.instance(y.T[None].contiguous()).pow(3).sum() + self.group(y).pow(3).sum()
        looked_up = (
            self.embedding(torch.tensor([0, 1, 1])).pow(2).sum() + self.bag(torch.tensor([[0, 1], [2, 3]])).sum()
        )
        return steps.sum() + (h * c).sum() + (mixed * y).sum() + normed + looked_up + self.rrelu(self.prelu(y)).sum()


class Pixels(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.ConvTranspose2d(4, 2, 2, stride=2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.LocalResponseNorm(2),
            nn.AdaptiveAvgPool2d(2),
            nn.Softplus(),
            nn.Flatten(),
        )


def several_outputs(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    s = torch.linalg.svd(model.weight, full_matrices=False)[1]
    return y.topk(3, 1)[0].sum() + y.sort(1)[0][:, 0].sum() + y.median() + s.sum() + y.cumsum(0).logsumexp(1).sum()


def lists(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    first, second = torch.meshgrid(y[0], y[1], indexing="ij")
    parts = torch.cat([*y.unbind(0), *first.split(3)[0], second[0]])
    wide = torch.broadcast_tensors(y, y[:1])[1]
    pair = [y * 1, y * 2]
    torch._foreach_mul_(pair, 2.0)
    torch._foreach_add_(pair, pair)
    return parts.sum() + wide.sum() + torch.stack(list(y.chunk(4, 1))).sum() + pair[0].sum() + pair[1].pow(2).sum()


def many_losses(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    ctc = F.ctc_loss(y.log_softmax(1)[:, None], torch.tensor([[1, 2]]), torch.tensor([5]), torch.tensor([2]))
    return (
        F.binary_cross_entropy(y.sigmoid(), torch.ones(5, 8))
        + F.smooth_l1_loss(y, y.detach() * 0)
        + F.cosine_embedding_loss(y, y * 2, torch.ones(5))
        + F.multi_margin_loss(y, torch.arange(5))
        + F.gaussian_nll_loss(y, y * 0, y.exp())
        + ctc
    )


def complex_numbers(model: nn.Module, x: Tensor) -> Tensor:
    y = torch.fft.rfft(model(x)) * (1 + 2j)
    return torch.view_as_real(y).pow(2).sum() + y.abs().sum() + y.real.sum()


def under_modes_of_the_users(model: nn.Module, x: Tensor) -> Tensor:
    class Plain(torch.Tensor):
        pass

    class Passing(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with Passing():
        y = (model(x).as_subclass(Plain) * 2).as_subclass(torch.Tensor)
    with torch.inference_mode():
        shift = y.std() + 1
    return (y + shift).sum() + nn.Parameter(y.detach()).sum() * model.bias.sum()


@pytest.mark.parametrize(
    "loss", [several_outputs, lists, many_losses, complex_numbers, under_modes_of_the_users], ids=lambda f: f.__name__
)
def test_a_program_of_assorted_operations_is_healthy(loss):
    healthy(loss)


@pytest.mark.parametrize(("model", "shape"), [(Assorted, (5, 4)), (Pixels, (2, 3, 8, 8))])
def test_a_model_of_assorted_layers_is_healthy(model, shape):
    torch.manual_seed(0)
    module = model()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    tape = record(module, lambda m, x: m(x).pow(2).mean(), torch.randn(shape))
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in start.items())
    module.load_state_dict(start)
    healthy(lambda m, x: m(x).pow(2).mean(), module, torch.randn(shape))
    assert (
        max(
            residuals(record(module, lambda m, x: m(x).pow(2).mean(), torch.randn(shape), dtype=torch.float64)).values()
        )
        < 1e-13
    )
    assert not [node for node in tape.graph.nodes if node.op._schema.is_mutable]


def test_a_dataclass_batch_has_leaves_named_by_their_place_and_can_be_bound_anew():
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        assert isinstance(batch, Pair)
        return F.mse_loss(model(batch.left), batch.right["y"][0]) * batch.weight

    batch = Pair(X, {"y": [torch.ones(5, 8)]}, 0.5)
    healthy(loss, batch=batch)
    graph = capture_by_tape(linear(), loss, batch)
    assert {".left", ".right['y'][0]"} == {leaf.path for leaf in graph.leaves.values() if leaf.kind == "batch"}
    other = Pair(X * 2, {"y": [torch.zeros(5, 8)]}, 0.5)
    model = linear()
    torch.testing.assert_close(loss(model, other), loss_of(graph, evaluate(graph, bind(graph, model, other))))


def test_a_batch_changed_in_place_by_the_model_stays_the_users():
    x = X.clone()
    healthy(lambda m, b: m(b.mul_(2)).sum() + b.sum() * m.bias.sum(), batch=x.clone())
    record(linear(), lambda m, b: m(b.mul_(2)).sum(), x)
    assert torch.equal(X, x)


def test_the_promoted_graph_of_a_tape_is_the_float64_run():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x).float().softmax(-1).to(torch.float32) * torch.arange(8)).std()

    narrow = promote(capture_by_tape(linear(), loss, X))
    wide = record(linear(), loss, X, dtype=torch.float64)
    assert torch.float64 == wide.loss.dtype
    torch.testing.assert_close(wide.loss, loss_of(narrow, evaluate(narrow)), rtol=1e-14, atol=0)


def test_a_float64_run_widens_every_cast_constant_and_new_tensor():
    table = torch.linspace(0, 1, 8)  # the user's own, float32

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y = model(x).to(torch.bfloat16) + torch.zeros(8, dtype=torch.float16)
        y = y.float() @ torch.eye(8) + torch.tensor(1.0) + torch.tensor([0.5], dtype=torch.float32)
        y = y.softmax(-1, dtype=torch.float32) + torch.from_numpy(np.ones(8, dtype=np.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = y.half() @ model.weight
        return (
            y.sum() * torch.arange(3).float().sum() + (table * model.bias).sum() * torch.rand(8, dtype=torch.float32)[0]
        )

    tape = record(linear(), loss, X, dtype=torch.float64)
    held = [tensor for value in tape.values.values() for tensor in [value] if tensor.is_floating_point()]
    assert {torch.float64} == {tensor.dtype for tensor in held}
    assert max(residuals(tape).values()) < 1e-13
    assert torch.float32 is torch.get_default_dtype()


def test_autocast_is_written_down_as_casts():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = F.gelu(model(x))
            z = torch.einsum("ij,kj->ik", y, F.layer_norm(y, (8,)))
            return F.cross_entropy(z, torch.arange(5)) + z.float().sum()

    tape = record(linear(), loss, X)
    casts = [node for node in tape.graph.nodes if node.op is aten._to_copy.default]
    assert torch.bfloat16 in {node.arguments["dtype"] for node in casts}
    assert torch.bfloat16 is tape.values["linear"].dtype
    assert {} == disagreements(tape)
    assert max(residuals(tape).values()) < 0.05
    wide = record(linear(), loss, X, dtype=torch.float64)
    assert max(residuals(wide).values()) < 1e-13


def test_a_dropout_mask_is_the_one_of_the_users_run_and_can_be_drawn_again():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y = F.dropout(model(x), 0.25)
        y = F.alpha_dropout(y, 0.2, training=True) + F.dropout2d(y[None, :, :, None], 0.5)[0, :, :, 0]
        return (y * torch.rand_like(y) + torch.randn(8) * y).sum() + torch.bernoulli(y.sigmoid()).sum() * y.mean()

    healthy(loss)
    model = linear()
    torch.manual_seed(7)
    tape = record(model, loss, X)
    masks = [leaf for leaf in tape.graph.leaves.values() if leaf.kind == "random"]
    plain = masks[0]
    assert torch.equal(torch.tensor([0.0, 1 / 0.75]), plain.value.unique())
    constants = {name: leaf.value for name, leaf in tape.graph.leaves.items()}
    torch.manual_seed(7)
    assert torch.equal(plain.value, run(plain.recipe, constants))
    drawn = [leaf for leaf in masks if leaf.recipe is not None]
    assert {"dropout", "rand_like", "randn", "bernoulli"} == {str(leaf.recipe.op).split(".")[1] for leaf in drawn}
    assert all(leaf.value.shape == run(leaf.recipe, constants).shape for leaf in drawn)


def test_attention_with_dropout_becomes_its_textbook_steps_with_the_mask_as_a_leaf():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        q, k = model(x).view(1, 1, 5, 8), model(x * 2).view(1, 1, 5, 8)
        return F.scaled_dot_product_attention(q, k, q, dropout_p=0.3, is_causal=True).pow(2).sum()

    healthy(loss)
    tape = record(linear(), loss, X)
    assert aten.scaled_dot_product_attention.default not in {node.op for node in tape.graph.nodes}
    assert ["dropout_mask"] == [leaf.name for leaf in tape.graph.leaves.values() if leaf.kind == "random"]


def test_dropout_inside_an_lstm_is_off_and_said_to_be():
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 3, num_layers=2, dropout=0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x[:, None])[0]

    tape = record(Tagger(), lambda m, x: m(x).sum(), X)
    assert (
        "cell.lstm: its dropout (p=0.5) is drawn inside one op where it cannot be held fixed; it is off here.",
    ) == (tape.graph.notes)
    assert {} == disagreements(tape)


def test_a_smooth_random_draw_is_refused_with_its_line():
    with pytest.raises(CaptureError, match=r"test_tape_programs.py:\d+: .*depend smoothly"):
        record(linear(), lambda m, x: torch.distributions.Gamma(m(x).exp(), 1.0).rsample().sum(), X)


def test_tensors_from_outside_the_model_are_constants_and_their_grad_is_left_alone():
    teacher, scale = linear(), torch.ones((), requires_grad=True)
    scale.grad = torch.tensor(3.0)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x) * scale - teacher(x) + torch.from_numpy(np.arange(8.0, dtype=np.float32))).pow(2).sum()

    tape = record(linear(), loss, X)
    assert 3.0 == float(scale.grad)
    assert all(p.grad is None for p in teacher.parameters())
    constants = {leaf.name for leaf in tape.graph.leaves.values() if leaf.kind == "constant"}
    assert 4 == len(constants)
    assert max(residuals(tape).values()) < 1e-5
    assert any(Ref(name) in tape.adjoints for name in constants)


def test_a_parameter_reached_by_another_way_than_the_model_is_the_same_leaf():
    model = linear()
    weight = model.weight
    healthy(lambda m, x: m(x).sum() + weight.pow(2).sum(), model)


def test_a_loss_that_is_a_module_has_its_parameters_on_the_tape():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, model: nn.Module, x: Tensor) -> Tensor:
            return (model(x) / self.temperature).logsumexp(1).sum()

    tape = record(linear(), Scaled(), X)
    assert {"weight", "bias", "(loss).temperature"} == set(tape.graph.parameters)
    assert tape.adjoints[Ref(tape.graph.parameters["(loss).temperature"].name)] != 0


def test_a_transform_of_torch_func_on_the_gradient_path_is_refused_and_off_it_is_data():
    def mapped(model: nn.Module, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: model.weight @ row)(x).sum()

    with pytest.raises(CaptureError, match=r"test_tape_programs.py:\d+: .*torch.func transform"):
        record(linear(), mapped, X)
    healthy(lambda m, x: m(x * torch.func.vmap(lambda row: row.sum())(x)[:, None]).sum())


def test_a_gradient_inside_the_loss_is_refused_with_its_line():
    def penalised(model: nn.Module, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(x).sin().sum(), x, create_graph=True)
        return g.pow(2).sum()

    with pytest.raises(CaptureError, match=r"test_tape_programs.py:\d+: a gradient is taken inside"):
        record(linear(), penalised, X)


@pytest.mark.slow
def test_a_compiled_submodule_is_recorded_as_the_eager_code_it_was_made_of():
    model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(4, 8), nn.GELU()), backend="eager"), nn.Linear(8, 2))
    model(X)
    tape = record(model, lambda m, x: m(x).sum(), X)
    assert ["linear", "gelu", "linear_1", "sum"] == [node.name for node in tape.graph.nodes]
    assert max(residuals(tape).values()) < 1e-5


def test_parametrized_weights_and_old_style_weight_norm_are_followed():
    with pytest.warns(FutureWarning, match="weight_norm"):
        old = nn.utils.weight_norm(nn.Linear(4, 6))
    new = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 8))
    healthy(lambda m, x: m(x).pow(2).sum(), nn.Sequential(old, nn.Tanh(), new.eval()))
