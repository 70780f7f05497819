"""Recording changes nothing of the user's: no parameter, buffer, gradient, generator, hook, attribute or setting."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from chainrule.capture.tape import capture_by_tape, record

X = torch.linspace(-1, 1, 20).reshape(5, 4)


class Messy(nn.Module):
    """Stores activations, counts its calls, draws from three generators, moves its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.calls, self.kept, self.seen = 0, None, []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.kept = self.norm(self.first(x))
        self.seen.append(self.kept)
        noise = torch.randn(8) * float(np.random.rand()) * random.random()
        return self.last(torch.dropout(self.kept + noise, 0.5, self.training))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).pow(2).mean()


def state(model: Messy) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    hooks = [
        dict(value)
        for name, value in vars(module_hooks).items()
        if name.startswith("_global_") and isinstance(value, dict)
    ]
    return [
        [id(tensor) for tensor in tensors],
        [tensor._version for tensor in tensors],
        [tensor.detach().numpy().tobytes() for tensor in tensors],
        [id(parameter.grad) for parameter in model.parameters()],
        [parameter.grad.numpy().tobytes() for parameter in model.parameters() if parameter.grad is not None],
        [(name, vars(part).keys(), part.training) for name, part in model.named_modules()],
        (model.calls, model.kept, list(model.seen)),
        (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")),
        hooks,
        torch._C._len_torch_dispatch_stack(),
        torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch),
    ]


@pytest.mark.parametrize("run", [record, capture_by_tape, lambda *setup: record(*setup, dtype=torch.float64)])
def test_everything_is_as_before(run):
    model = Messy()
    loss(model, X).backward()
    model.calls, model.kept, model.seen = 0, None, []
    before = state(model)
    run(model, loss, X)
    assert before == state(model)


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_everything_is_as_before_after_an_error_in_forward_and_in_backward(dtype):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise KeyError("in backward")

    def fails_forward(model: nn.Module, x: Tensor) -> Tensor:
        return loss(model, x) / [][1]

    def fails_backward(model: nn.Module, x: Tensor) -> Tensor:
        return Broken.apply(loss(model, x))

    model = Messy()
    before = state(model)
    for fails in (fails_forward, fails_backward):
        with pytest.raises(Exception, match=r"list index|in backward"):
            record(model, fails, X, dtype=dtype)
        assert before == state(model)


def test_the_model_trains_on_afterwards_as_if_nothing_had_been_recorded():
    def train(recorded: bool) -> list[float]:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        model = Messy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            if recorded:
                record(model, loss, X)
            optimizer.zero_grad()
            value = loss(model, X)
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        return losses

    assert train(False) == train(True)


def test_the_values_of_a_tape_are_its_own():
    model = Messy()
    tape = record(model, loss, X)
    before = {name: v.clone() for name, v in tape.values.items() if isinstance(v, Tensor)}
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(1)
    assert all(torch.equal(value, tape.values[name]) for name, value in before.items())
    assert torch.equal(tape.graph.leaves["p_first_weight"].value, before["p_first_weight"])


def test_recording_imports_no_compiler():
    """It takes two seconds, and would stay in the user's process."""
    program = (
        "import sys, torch; from chainrule.capture.tape import record;"
        "record(torch.nn.Linear(4, 1), lambda model, x: model(x).sum(), torch.ones(2, 4));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode
