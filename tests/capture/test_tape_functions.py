"""Custom autograd.Functions on the tape: forward inlined, the user's own backward recorded, whatever it does."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import _SingleLevelFunction
from torch.utils.checkpoint import checkpoint

from capture.tape_checks import disagreements, residuals, wrong_gradients
from chainrule.capture.tape import record
from chainrule.errors import CaptureError
from chainrule.graph import Ref

aten = torch.ops.aten


class Doubled(Function):
    """2 tanh(x), whose backward forgets the 2."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x.detach())
        ctx.save_for_backward(y)
        return y * 2

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class Clipped(Function):
    """Changes its input in place, in the style with setup_context."""

    @staticmethod
    def forward(x, low, high=1.0):
        return x.clamp_(low, high)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(inputs[0])
        ctx.save_for_backward(output)
        ctx.limits = inputs[1:]

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        low, high = ctx.limits
        return g * ((y > low) & (y < high)), None, None


class ByNumPy(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class FilledUnseen(Function):
    """What a compiled kernel does: allocates with torch, fills the memory by itself."""

    @staticmethod
    def forward(ctx, x):
        y = torch.empty_like(x)
        y.numpy()[:] = np.sin(x.detach().numpy())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.cos()


class WithIndex(Function):
    """The largest entry of each row, and where it stands."""

    @staticmethod
    def forward(ctx, x):
        value, index = x.max(1)
        rank = index.to(x.dtype)
        ctx.mark_non_differentiable(index, rank)
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return value, index, rank

    @staticmethod
    def backward(ctx, g, *_):
        (index,) = ctx.saved_tensors
        return torch.zeros(ctx.shape, dtype=g.dtype).scatter(1, index[:, None], g[:, None])


class Cut(Function):
    @staticmethod
    def forward(ctx, x, scale):
        return x * scale

    @staticmethod
    def backward(ctx, g):
        return g * 2, None


class OnlyFloat32(Function):
    @staticmethod
    def forward(ctx, x):
        if x.dtype != torch.float32:
            raise TypeError("this kernel takes float32")
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g


class NarrowBackward(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.float().sin()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.to(torch.float32) * torch.cos(x.float()) * torch.tensor(1.0, dtype=torch.float32)


bound_early = Doubled.apply


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))


def applied(function, *arguments):
    return lambda model, x: model[1](function(model[0](x) * 1, *arguments)).pow(2).sum()


X = torch.linspace(-1, 1, 20).reshape(5, 4)


def test_a_halved_backward_leaves_half_the_right_adjoint_at_its_input_and_only_there():
    tape = record(two_layers(), applied(Doubled.apply), X, dtype=torch.float64)
    (application,) = tape.applications
    wrong = {ref: size for ref, size in residuals(tape).items() if size > 1e-12}
    assert set(application.inputs) == set(wrong)
    y = tape.values["tanh"]
    right = tape.adjoints[application.outputs[0]] * 2 * (1 - y * y)
    torch.testing.assert_close(tape.adjoints[application.inputs[0]], right / 2, rtol=1e-13, atol=0)


def test_its_forward_is_inlined_under_its_name_and_detach_inside_it_cuts_nothing():
    tape = record(two_layers(), applied(Doubled.apply), X)
    inner = [node for node in tape.graph.nodes if node.function]
    assert ["tanh", "mul_1"] == [node.name for node in inner]
    assert {"Doubled"} == {node.function for node in inner}
    assert tape.applications[0].nodes == ("tanh", "mul_1")
    assert aten.detach.default not in {node.op for node in tape.graph.nodes}
    assert {} == disagreements(tape)


def test_an_application_says_what_went_in_and_out_where_and_what_its_backward_returned():
    tape = record(two_layers(), applied(bound_early), X)  # apply fetched before recording began
    (application,) = tape.applications
    assert "Doubled" == application.name
    assert (Ref("mul"),) == application.inputs
    assert (Ref("mul_1"),) == application.outputs
    assert not application.opaque
    assert "function(model[0](x) * 1" in application.source.code
    assert torch.equal(tape.adjoints[Ref("mul")], application.gradients[Ref("mul")])


@pytest.mark.parametrize("function", [Doubled, Clipped, WithIndex, Cut])
def test_gradients_are_bitwise_those_of_the_users_run(function):
    arguments = {Clipped: (-0.5,), Cut: (nn.Parameter(torch.ones(8)),)}.get(function, ())

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        output = function.apply(model[0](x) * 1, *arguments)
        return (
            sum(part.sum() for part in (output if isinstance(output, tuple) else (output,)))
            + model[1](x @ x.T @ torch.ones(5, 8)).sum()
        )

    model = two_layers()
    tape = record(model, loss, X)
    loss(model, X).backward()
    assert [] == wrong_gradients(tape, model)
    assert {} == disagreements(tape)


def test_an_input_changed_in_place_is_a_new_value():
    tape = record(two_layers(), applied(Clipped.apply, -0.5), X, dtype=torch.float64)
    (application,) = tape.applications
    assert aten.clamp.default is tape.graph.node(application.outputs[0].name).op
    assert max(residuals(tape).values()) < 1e-13


def test_an_output_declared_not_differentiable_is_detached():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        value, _, rank = WithIndex.apply(model[0](x))
        return (value * rank).sum() + model[1].weight.sum()

    tape = record(two_layers(), loss, X, dtype=torch.float64)
    assert max(residuals(tape).values()) < 1e-13
    assert aten.detach.default is tape.graph.node(tape.applications[0].outputs[2].name).op


def test_an_input_whose_gradient_the_backward_forgets_has_the_adjoint_zero():
    tape = record(two_layers(), lambda m, x: Cut.apply(m[0](x), m[1].bias).sum(), X, dtype=torch.float64)
    assert not tape.adjoints[Ref("p_1_bias")].any()
    assert residuals(tape)[Ref("p_1_bias")] > 0.9


@pytest.mark.parametrize("function", [ByNumPy, FilledUnseen])
def test_a_forward_that_cannot_be_recorded_is_opaque_and_said_to_be(function):
    model = two_layers()
    tape = record(model, applied(function.apply), X)
    (application,) = tape.applications
    assert application.opaque
    assert () == application.nodes
    assert "constant" == tape.graph.leaves[application.outputs[0].name].kind
    assert any(function.__name__ in note and "differences alone" in note for note in tape.graph.notes)
    assert {} == disagreements(tape)
    applied(function.apply)(model, X).backward()
    assert [] == wrong_gradients(tape, model)
    assert max(residuals(tape).values()) < 1e-5  # what the opaque backward returned is recorded


def test_a_kernel_that_refuses_float64_is_named_with_its_line():
    with pytest.raises(CaptureError, match=r"test_tape_functions.py:\d+: raise TypeError") as caught:
        record(two_layers(), applied(OnlyFloat32.apply), X, dtype=torch.float64)
    assert "cannot run in float64: TypeError: this kernel takes float32" in str(caught.value)
    record(two_layers(), applied(OnlyFloat32.apply), X)


def test_casts_in_a_custom_backward_are_widened_too():
    tape = record(two_layers(), applied(NarrowBackward.apply), X, dtype=torch.float64)
    assert max(residuals(tape).values()) < 1e-14


def test_apply_is_as_it_was_afterwards_even_after_an_error():
    before = Function.__dict__["apply"], dict(vars(_SingleLevelFunction))
    record(two_layers(), applied(Doubled.apply), X)
    assert (Function.__dict__["apply"], dict(vars(_SingleLevelFunction))) == before
    with pytest.raises(ZeroDivisionError):
        record(two_layers(), lambda m, x: Doubled.apply(m(x)).sum() / 0 * (1 // 0), X)
    assert (Function.__dict__["apply"], dict(vars(_SingleLevelFunction))) == before
    y = Doubled.apply(torch.ones(2, requires_grad=True))
    assert "DoubledBackward" == type(y.grad_fn).__name__


def test_a_module_with_full_backward_hooks_is_recorded_as_without():
    def build(hooked: bool) -> nn.Module:
        torch.manual_seed(0)
        model = two_layers()
        if hooked:
            model[1].register_full_backward_hook(lambda module, grad_input, grad_output: None)
        return model

    tapes = [record(build(hooked), lambda m, x: m(x).pow(2).sum(), X) for hooked in (False, True)]
    plain, hooked = ([str(node.op) for node in tape.graph.nodes] for tape in tapes)
    assert plain == hooked
    assert () == tapes[1].applications
    assert all(torch.equal(tapes[0].adjoints[ref], g) for ref, g in tapes[1].adjoints.items())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_is_recorded_once(use_reentrant):
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        def block(h: Tensor) -> Tensor:
            return Doubled.apply(torch.dropout(model[1](h), 0.5, True).sin())

        h = model[0](x)
        for _ in range(2):
            h = checkpoint(block, h, use_reentrant=use_reentrant)
        return h.pow(2).sum()

    model = two_layers()
    torch.manual_seed(5)
    tape = record(model, loss, X)
    torch.manual_seed(5)
    loss(model, X).backward()
    assert 3 == [node.op for node in tape.graph.nodes].count(aten.linear.default)
    assert 2 == len(tape.applications)
    assert [] == wrong_gradients(tape, model)
    assert {application.inputs[0] for application in tape.applications} == {
        ref for ref, size in residuals(tape).items() if size > 1e-5
    }


def test_a_reentrant_checkpoint_without_an_input_that_requires_grad_has_no_gradient():
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(model[0], x, use_reentrant=True).sum() + model[1].weight.sum()

    model = two_layers()
    tape = record(model, loss, X)
    assert Ref("p_0_weight") not in tape.adjoints or not tape.adjoints[Ref("p_0_weight")].any()
    assert max(residuals(tape).values()) < 1e-6
