"""In-place operations, views and everything that shares memory, as formulas without side effect."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture.tape_checks import disagreements, residuals, wrong_gradients
from chainrule.capture.tape import Tape, record
from chainrule.errors import CaptureError
from chainrule.graph import Ref

aten = torch.ops.aten
Program = Callable[[Tensor], Tensor]


def relu_in_place(y: Tensor) -> Tensor:
    z = y * 2
    z += 1
    z /= 3
    F.relu(z, inplace=True)
    return z


def column_overwritten(y: Tensor) -> Tensor:
    z = y * 1
    z[:, 0] = 0
    z[1] = y[2]
    z[:, 1:3] += y[:, :2]
    return z


def built_up_from_zeros(y: Tensor) -> Tensor:
    z = torch.zeros(5, 8)
    for i in range(5):
        z[i] = y[i] * i
    z[y[:, 0] > 0] = 0.5
    z.index_add_(0, torch.tensor([0, 2]), y[:2])
    return z


def views_see_the_write(y: Tensor) -> Tensor:
    z = y * 1
    row, flat, turned = z[1], z.view(-1), z.t()
    before = row + 1
    flat[3] = 7.0
    row.mul_(2)
    return torch.stack([before, row, turned[:, 1], flat[8:16]])


def views_of_views(y: Tensor) -> Tensor:
    z = y.clone()
    inner = z.view(5, 2, 4).transpose(1, 2)[:, 1]
    inner.copy_(torch.ones(5, 2))
    z.unsqueeze(0).squeeze(0).permute(1, 0)[2].add_(1)
    z.diagonal().fill_(2.0)
    z.narrow(1, 6, 2).exp_()
    return z


def parts_of_a_split(y: Tensor) -> Tensor:
    z = y * 1
    with torch.no_grad():
        first, second = y.detach().clone().chunk(2, 1)
        second.zero_()
    a, b = z.split([3, 5], 1)
    return torch.cat([a * first[:, :3], b * 2, second], 1)


def shape_changed_in_place(y: Tensor) -> Tensor:
    z = y.clone()
    z.transpose_(0, 1)
    z.unsqueeze_(0)
    z.squeeze_()
    return z * 2


def type_kept(y: Tensor) -> Tensor:
    n = torch.arange(8)
    n += 2
    n.mul_(2)
    h = torch.ones(8, dtype=torch.float16)
    h += torch.full((8,), 0.1)
    return y * n * h


def written_to_out(y: Tensor) -> Tensor:
    scale = torch.zeros(8)
    torch.add(torch.ones(8), 1, out=scale)
    return y * scale


def detached_and_written(y: Tensor) -> Tensor:
    z = y * 1
    copy = z.detach()
    copy[0] = 3.0  # changes z too, behind autograd's back
    return z.sum(0) + z * copy


def data_written(y: Tensor) -> Tensor:
    z = y * 1
    z.data.clamp_(-0.5, 0.5)
    return z * 2


def silently_clamped(y: Tensor) -> Tensor:
    z = y * 1
    with torch.no_grad():
        z.clamp_(-0.5, 0.5)
        z[0] = 1.0
    return z * 2


def masked(y: Tensor) -> Tensor:
    z = y * 1
    z.masked_fill_(z > 1, -1.0)
    z.masked_scatter_(z < -0.5, y.flatten())
    z.scatter_add_(1, torch.zeros(5, 1, dtype=torch.long), y[:, :1])
    return z


PROGRAMS = [
    relu_in_place,
    column_overwritten,
    built_up_from_zeros,
    views_see_the_write,
    views_of_views,
    parts_of_a_split,
    shape_changed_in_place,
    type_kept,
    written_to_out,
    detached_and_written,
    data_written,
    silently_clamped,
    masked,
]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def loss_of(program: Program) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda model, x: (program(model(x)) ** 2).mean()


def taped(program: Program, dtype: torch.dtype | None = None) -> tuple[nn.Module, Tensor, Tape]:
    torch.manual_seed(3)
    model, x = nn.Linear(4, 8), torch.randn(5, 4)
    return model, x, record(model, loss_of(program), x, dtype=dtype)


@every_program
def test_a_program_with_side_effects_becomes_formulas_without_that_compute_the_same(program):
    _, _, tape = taped(program)
    assert {} == disagreements(tape)
    assert not [node for node in tape.graph.nodes if node.op._schema.is_mutable]


@every_program
def test_its_gradients_are_bitwise_those_of_the_users_run(program):
    model, x, tape = taped(program)
    loss_of(program)(model, x).backward()
    assert [] == wrong_gradients(tape, model)


@every_program
def test_its_adjoints_fit_together_in_float64(program):
    _, _, tape = taped(program, torch.float64)
    assert max(residuals(tape).values()) < 1e-14


def test_a_write_through_a_view_becomes_a_scatter_into_its_base():
    _, _, tape = taped(column_overwritten)
    ops = [node.op for node in tape.graph.nodes]
    assert 2 == ops.count(aten.select_scatter.default)
    assert 2 == ops.count(aten.slice_scatter.default)


def test_a_buffer_that_forward_updates_is_named_with_its_new_value():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 8)
            self.register_buffer("mean", torch.zeros(8))
            self.register_buffer("last", torch.zeros(()))
            self.register_buffer("never", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            with torch.no_grad():
                self.mean.lerp_(y.mean(0), 0.1)
                self.last = y.abs().max()
            return y - self.mean

    model, x = Counting(), torch.randn(5, 4)
    tape = record(model, lambda m, x: m(x).pow(2).sum(), x)
    assert not model.mean.any()
    model(x)
    assert {"mean", "last"} == set(tape.graph.mutated)
    assert torch.equal(model.mean, tape.values[tape.graph.mutated["mean"].name])
    assert torch.equal(model.last, tape.values[tape.graph.mutated["last"].name])
    assert max(residuals(tape).values()) < 1e-5


def test_what_no_grad_computes_is_detached_where_it_is_used_and_only_there():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        y = model(x)
        with torch.no_grad():
            scale = y.std() + 1
            scale = scale * 2
        return (y / scale).sum() + scale

    tape = record(nn.Linear(4, 8), loss, torch.randn(5, 4))
    assert 1 == [node.op for node in tape.graph.nodes].count(aten.detach.default)
    assert max(residuals(tape).values()) < 1e-5
    assert Ref("std") not in tape.adjoints


def storage_swapped(y: Tensor) -> Tensor:
    z = y * 1
    z.data = torch.ones(5, 8)
    return z


def expanded_and_written(y: Tensor) -> Tensor:
    z = torch.zeros(1, 8).expand(5, 8)[:, :1]
    torch.Tensor.as_strided(z, (2,), (0,)).resize_(3)
    return y * z.sum()


@pytest.mark.parametrize(
    ("program", "words"),
    [(storage_swapped, "memory of a tensor .* was replaced"), (expanded_and_written, "replaces a tensor's memory")],
)
def test_what_cannot_be_followed_is_refused_with_the_line(program, words):
    with pytest.raises(CaptureError, match=rf"{__file__.rpartition('/')[2]}:\d+: .*{words}"):
        taped(program)
