"""Nothing of the user's changes: model, loss, batch, generators and globals are bit for bit as they were."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from capture.graph_runs import Computed, run_graph, squared
from chainrule.capture import capture
from chainrule.capture.preserve import preserved

X = torch.linspace(-1, 1, 20).view(5, 4)
SEEN: list[Any] = []  # what a hook of a script would write to
CALLS = 0


def state_of(model: nn.Module) -> dict[str, Any]:
    """Every attribute of every module, its identity, and every number in parameters and buffers."""
    attributes = {
        (path, name): (id(value), repr(value) if isinstance(value, (list, dict, int, float, deque)) else None)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    }
    tensors = {
        name: (id(t), t.detach().clone(), t.grad, t.requires_grad)
        for name, t in model.state_dict(keep_vars=True).items()
    }
    return {"attributes": attributes, "tensors": tensors, "training": [m.training for m in model.modules()]}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before["attributes"] == after["attributes"]
    assert before["training"] == after["training"]
    assert before["tensors"].keys() == after["tensors"].keys()
    for name, (number, values, grad, flag) in before["tensors"].items():
        assert (number, grad, flag) == (after["tensors"][name][0], after["tensors"][name][2], after["tensors"][name][3])
        assert torch.equal(values, after["tensors"][name][1])


def generators() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tolist(), rest, torch.get_rng_state().tolist()


def stores_an_activation(m, x):
    m.last = m.linear(x)
    return m.last * m.weight


def replaces_an_activation(m, x):
    if not hasattr(m, "kept"):
        m.kept = None
    m.kept = m.linear(x).detach()
    return m.linear(x)


def appends_to_a_list(m, x):
    m.history.append(m.linear(x))
    m.table["last"] = m.linear(x)
    m.count += 1
    return m.linear(x)


def draws_from_numpy(m, x):
    return m.linear(x) * float(np.random.rand()) * random.random()


def branches_on_nan(m, x):
    hidden = m.linear(x)
    m.last = hidden
    if hidden.isnan().any():
        raise ValueError("nan")
    return hidden


def changes_in_place(m, x):
    hidden = m.linear(x)
    hidden.mul_(2).relu_()
    m.mean.mul_(0.9)
    m.mean += hidden.detach().mean(0)
    return hidden * m.mean


def changes_the_mode(m, x):
    m.train(False)
    m.linear.weight.requires_grad_(False)
    torch.set_default_dtype(torch.float64)
    return m.linear(x) * m.weight


def counts_globally(m, x):
    global CALLS
    CALLS += 1
    SEEN.append(x)
    return m.linear(x)


def fails(m, x):
    m.last = m.linear(x)
    np.random.rand()
    return m.linear(x[:, :1])


CASES = [
    stores_an_activation, replaces_an_activation, appends_to_a_list, draws_from_numpy, branches_on_nan,
    changes_in_place, changes_the_mode, counts_globally, fails,
]  # fmt: skip


@pytest.mark.parametrize("forward", CASES, ids=lambda forward: forward.__name__)
@pytest.mark.parametrize("dropout", [False, True])
def test_a_model_is_as_it_was(forward, dropout):
    model = Computed(lambda m, x: nn.functional.dropout(forward(m, x), 0.3) if dropout else forward(m, x))
    model.history, model.table, model.count = deque([1]), {"first": 1}, 0
    SEEN.clear()
    model_before, generators_before = state_of(model), generators()

    if forward is fails:
        with pytest.raises(Exception, match="cannot be multiplied"):
            capture(model, squared, X)
    else:
        capture(model, squared, X)

    assert_same(model_before, state_of(model))
    assert generators_before == generators()
    assert ([], 0, torch.float32) == (SEEN, CALLS, torch.get_default_dtype())
    assert (deque([1]), {"first": 1}) == (model.history, model.table)


def test_weight_norm_after_a_forward_is_as_it_was():
    model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 3)), nn.ReLU())
    model(X)  # leaves `weight`, which is no leaf of autograd and which deepcopy refuses
    before, weight = state_of(model), model[0].weight

    graph = capture(model, squared, X)

    assert_same(before, state_of(model))
    assert weight is model[0].weight
    assert {"0.weight_g", "0.weight_v", "0.bias"} == graph.parameters.keys()


weight_norm_warns = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
test_weight_norm_after_a_forward_is_as_it_was = weight_norm_warns(test_weight_norm_after_a_forward_is_as_it_was)


class Recorder:
    """A hook that is an object, as monitors are."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []
        self.calls = 0

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.means.append(output.mean())
        self.calls += 1


def test_forward_hooks_leave_no_trace():
    model, closure, recorder, array = Computed(lambda m, x: m.linear(x)), [], Recorder(), np.zeros(3)
    calls = 0

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal calls
        calls += 1
        array[0] += 1
        closure.append(output)

    model.linear.register_forward_hook(hook)
    model.linear.register_forward_pre_hook(lambda module, inputs: SEEN.append(inputs))
    model.linear.register_forward_hook(recorder)
    SEEN.clear()
    before = state_of(model)

    capture(model, squared, X)

    assert_same(before, state_of(model))
    assert ([], [], [], 0, 0, 0.0) == (closure, SEEN, recorder.means, recorder.calls, calls, array[0])


def test_a_hook_that_changes_the_output_is_part_of_the_graph():
    model = Computed(lambda m, x: m.linear(x))
    model.linear.register_forward_hook(lambda module, inputs, output: output * 3)

    graph = capture(model, squared, X)

    assert 3 in [value for node in graph.nodes for value in node.arguments.values() if isinstance(value, int)]


COUNTER = torch.zeros(4)


@pytest.mark.parametrize("kind", ["global", "attribute", "in a list"])
def test_a_tensor_that_is_no_buffer_and_is_changed_in_place_has_its_numbers_back(kind):
    model = Computed(lambda m, x: m.linear(x) * m.steps)
    model.steps, model.kept = torch.zeros(4), [torch.zeros(4)]
    changed = {"global": COUNTER, "attribute": model.steps, "in a list": model.kept[0]}[kind]

    def loss(model, x):
        (COUNTER if kind == "global" else model.steps if kind == "attribute" else model.kept[0]).add_(1)
        return squared(model, x)

    graph = capture(model, loss, X)

    assert [0, 0, 0, 0] == changed.tolist()
    assert run_graph(graph).item() == loss(model, X).item()
    changed.zero_()


def test_gradients_that_were_there_stay():
    model = Computed(lambda m, x: m.linear(x))
    squared(model, X).backward()
    before = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None}

    capture(model, squared, X)

    for name, (grad, values) in before.items():
        assert model.get_parameter(name).grad is grad
        assert torch.equal(values, grad)


@dataclass
class Example:
    x: Tensor
    used: list[str] = field(default_factory=list)


def test_a_dataclass_batch_is_as_it_was():
    batch = Example(X.clone())
    tensor, used = batch.x, batch.used

    def loss(model, b):
        b.x.mul_(2)
        b.used.append("yes")
        b.extra = model.linear(b.x)
        return b.extra.sum()

    capture(Computed(lambda m, x: x), loss, batch)

    assert {"x": tensor, "used": used} == vars(batch)
    assert (torch.equal(X, batch.x), []) == (True, used)


def test_a_batch_that_the_loss_takes_apart_is_whole_again():
    batch = {"x": X, "labels": torch.arange(5), "note": "kept"}

    def loss(model, b):
        b.pop("note")
        return (model.linear(b.pop("x")).sum(1) * b.pop("labels")).sum()

    capture(Computed(lambda m, x: x), loss, batch)

    assert ["x", "labels", "note"] == [*batch]


def test_a_one_shot_iterator_is_not_consumed():
    once = iter(range(5))
    model = Computed(lambda m, x: m.linear(x["x"]))
    model.stream = once

    capture(model, squared, {"x": X, "rest": once})

    assert [0, 1, 2, 3, 4] == [*once]


def loader_of(seed: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.arange(8.0).view(8, 1))
    return DataLoader(data, batch_size=2, sampler=RandomSampler(data, generator=generator))


def test_a_loaders_generators_are_put_back():
    loader = loader_of(3)
    expected = [batch[0].flatten().tolist() for batch in loader_of(3)]
    rng = torch.get_rng_state()

    with preserved(generators=(loader,)):
        next(iter(loader))
        next(iter(loader))

    assert torch.equal(rng, torch.get_rng_state())
    assert expected == [batch[0].flatten().tolist() for batch in loader]


def test_a_data_sets_own_generators_are_put_back():
    class Noisy(torch.utils.data.Dataset[Tensor]):
        def __init__(self) -> None:
            self.numpy, self.python = np.random.default_rng(1), random.Random(2)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Tensor:
            return torch.tensor(self.numpy.random() + self.python.random())

    expected = [*DataLoader(Noisy(), batch_size=2)]
    loader = DataLoader(Noisy(), batch_size=2)

    with preserved(generators=(loader,)):
        list(loader)

    assert all(torch.equal(one, two) for one, two in zip(expected, loader, strict=True))


def test_with_contents_a_whole_training_step_is_undone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    squared(model, X).backward()
    optimizer.step()
    schedule.step()
    numbers = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    settings = [dict(group) for group in optimizer.param_groups]

    with preserved(model, optimizer, schedule, contents=True):
        for _ in range(2):
            squared(model, X).backward()
            optimizer.step()
            schedule.step()

    assert all(torch.equal(numbers[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(grads, (p.grad for p in model.parameters()), strict=True))
    assert all(
        torch.equal(*pair) for pair in zip(moments, (s["exp_avg"] for s in optimizer.state.values()), strict=True)
    )
    assert settings == [dict(group) for group in optimizer.param_groups]
    assert 1 == schedule.last_epoch


def test_what_is_restored_would_have_changed():
    """The test of the tests above: without `preserved` the same code does leave traces."""
    global CALLS
    SEEN.clear()

    torch.export.export(Computed(counts_globally), (X,), strict=False)

    assert (1, 1) == (len(SEEN), CALLS)
    assert "FakeTensor" == type(SEEN.pop()).__name__
    CALLS = 0


test_what_is_restored_would_have_changed = pytest.mark.filterwarnings("ignore")(
    test_what_is_restored_would_have_changed
)
