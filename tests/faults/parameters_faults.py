"""Faults in which tensors are parameters, reach the loss, and are held by the optimizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import Setup
from faults.case import Case
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch


def images(size: int = 5, classes: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 8, 8), torch.arange(size) % classes


def points(size: int = 7, width: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(size, width), torch.arange(size) % classes


def gpt_setup(model: nn.Module, parameters: object) -> Setup:
    return Setup(model, next_token_loss, [token_batch()], torch.optim.AdamW(parameters, lr=1e-3))


# --- not-in-optimizer -------------------------------------------------------------------------------------------------
def optimizer_of_a_copy(broken: bool) -> Setup:
    model = SmallGPT()
    built_on = copy.deepcopy(model) if broken else model
    return gpt_setup(model, built_on.parameters())


def cast_by_new_parameters(broken: bool) -> Setup:
    """A wrapper that replaces every parameter (as flattening for sharding does) after the optimizer was made."""
    model = SmallGPT()
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, nn.Parameter(parameter.detach().clone()))
    late = torch.optim.SGD(model.parameters(), lr=0.1)
    return Setup(model, next_token_loss, [token_batch()], early if broken else late)


def new_head_after_the_optimizer(broken: bool) -> Setup:
    model = BatchNormCNN()
    early = torch.optim.Adam(model.parameters())
    model.head = nn.Linear(6, 5)
    return Setup(model, class_loss, [images()], early if broken else torch.optim.Adam(model.parameters()))


def forgotten_embedding(broken: bool) -> Setup:
    model = SmallGPT()
    parts = [model.blocks, model.norm, model.head] + ([] if broken else [model.embedding])
    parameters = [p for part in parts for p in part.parameters()] + [model.position]
    return gpt_setup(model, parameters)


def decay_groups_that_miss_the_norms(broken: bool) -> Setup:
    model = SmallGPT()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for name, p in model.named_parameters() if p.dim() < 2 and (name.endswith("bias") or not broken)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return gpt_setup(model, groups)


# --- dead-parameter ---------------------------------------------------------------------------------------------------
class OneUnit(nn.Module):
    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.body, self.softmax = MLP((5, 16, 1)), softmax

    def forward(self, x: Tensor) -> Tensor:
        logit = self.body(x)
        return logit.softmax(-1) if self.softmax else logit.sigmoid()


def softmax_over_one_unit(broken: bool) -> Setup:
    x = torch.randn(6, 5)
    y = (torch.arange(6)[:, None] % 2).float()
    return Setup(OneUnit(softmax=broken), lambda m, b: -(b[1] * (m(b[0]) + 1e-7).log()).mean(), [(x, y)])


class ForgottenNorm(SmallGPT):
    """The last norm is built; forward calls it or not."""

    def __init__(self, *, call: bool) -> None:
        super().__init__()
        self.call = call

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT) + self.position[: tokens_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD) if self.call else x_BTD)


def layer_never_called(broken: bool) -> Setup:
    return Setup(ForgottenNorm(call=not broken), next_token_loss, [token_batch()])


class Masked(nn.Module):
    """A branch whose output is multiplied by a mask; the mask is of zeros in the broken one."""

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.main, self.side, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)
        self.register_buffer("keep", torch.full((8,), keep))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.main(x)) + self.keep * torch.tanh(self.side(x)))


def branch_masked_out(broken: bool) -> Setup:
    return Setup(Masked(0.0 if broken else 1.0), class_loss, [points()])


class Loop(nn.Module):
    """Calls the same layer each time where one layer per step was meant."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.layers, self.broken = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)]), broken
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):
            x = torch.relu(self.layers[0 if self.broken else i](x) + 0.5)
        return self.head(x)


def same_layer_each_time(broken: bool) -> Setup:
    return Setup(Loop(broken=broken), class_loss, [points()])


def targets_masked_away(broken: bool) -> Setup:
    """The weight of every example is zero: integer division of a mask."""
    x, y = points()
    weight = torch.zeros(7) if broken else torch.ones(7)
    return Setup(MLP(), lambda m, b: (F.cross_entropy(m(b[0]), b[1], reduction="none") * b[2]).mean(), [(x, y, weight)])


CASES: list[Case] = [
    Case(
        "TC19",
        "accelerate#2665",
        "optimizer made of a copy of the model",
        "not-in-optimizer",
        optimizer_of_a_copy,
        "AdamW",
    ),
    Case(
        "TC19b",
        "pytorch#149205",
        "parameters replaced after the optimizer was made",
        "not-in-optimizer",
        cast_by_new_parameters,
        "SGD",
    ),
    Case(
        "TC19c",
        "pytorch#107843",
        "new head after the optimizer was made",
        "not-in-optimizer",
        new_head_after_the_optimizer,
        "head",
    ),
    Case(
        "O12a",
        "trl#3926",
        "the embedding is handed to no optimizer",
        "not-in-optimizer",
        forgotten_embedding,
        "embedding",
    ),
    Case(
        "O12b",
        "generic: decay groups by name",
        "norm weights fall between the groups",
        "not-in-optimizer",
        decay_groups_that_miss_the_norms,
        "norm",
    ),
    Case(
        "S03",
        "StackOverflow 31627380",
        "softmax over one output unit",
        "dead-parameter",
        softmax_over_one_unit,
        "OneUnit",
    ),
    Case("P01", "generic", "a norm is built and never called", "dead-parameter", layer_never_called, "norm"),
    Case("P02", "generic", "a branch multiplied by a mask of zeros", "dead-parameter", branch_masked_out, "side"),
    Case("P03", "generic", "layers[0] where layers[i] was meant", "dead-parameter", same_layer_each_time, "layers"),
    Case("P04", "generic", "every example's weight is zero", "dead-parameter", targets_masked_away, "MLP"),
]
