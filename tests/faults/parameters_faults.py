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


# --- not-registered ---------------------------------------------------------------------------------------------------
class PlainList(nn.Module):
    """Layers in a Python list, or in a ModuleList."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        layers = [nn.Linear(5, 5) for _ in range(2)]
        self.layers = layers if broken else nn.ModuleList(layers)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters())


def classifier(model: nn.Module) -> Setup:
    return Setup(model, class_loss, [points()], adam(model))


def layers_in_a_list(broken: bool) -> Setup:
    return classifier(PlainList(broken=broken))


class PlainDict(nn.Module):
    """One head for each task, in a dict."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8)
        heads = {"colour": nn.Linear(8, 3), "size": nn.Linear(8, 3)}
        self.heads = heads if broken else nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x))
        return self.heads["colour"](h) + self.heads["size"](h)


def heads_in_a_dict(broken: bool) -> Setup:
    return classifier(PlainDict(broken=broken))


class PlainTensor(nn.Module):
    """A temperature that requires grad and is no parameter."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.body = MLP()
        scale = torch.ones(3)
        self.scale = scale.requires_grad_() if broken else nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.scale


def plain_tensor(broken: bool) -> Setup:
    return classifier(PlainTensor(broken=broken))


# --- twice-in-optimizer -----------------------------------------------------------------------------------------------
def unfrozen_twice(broken: bool) -> Setup:
    """The head is handed over again when the rest is unfrozen."""
    model = SmallGPT()
    optimizer = torch.optim.AdamW(model.parameters())
    if broken:
        optimizer.param_groups[0]["params"].extend(model.head.parameters())
    return Setup(model, next_token_loss, [token_batch()], optimizer)


def tied_by_data(broken: bool) -> Setup:
    model = SmallGPT()
    if broken:
        model.head.weight.data = model.embedding.weight.data
    else:
        model.head.weight = model.embedding.weight
    return Setup(model, next_token_loss, [token_batch()], adam(model))


# --- frozen-parameter -------------------------------------------------------------------------------------------------
class Adapter(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


def adapters_frozen_with_the_rest(broken: bool) -> Setup:
    model = SmallGPT().requires_grad_(False)
    for block in model.blocks:
        block.value = Adapter(block.value)
        block.value.lora_a.requires_grad_(not broken)
        block.value.lora_b.requires_grad_(not broken)
    model.head.requires_grad_()
    return Setup(model, next_token_loss, [token_batch()])


def one_weight_left_frozen(broken: bool) -> Setup:
    model = SmallGPT()
    model.blocks[1].up.weight.requires_grad_(not broken)
    return Setup(model, next_token_loss, [token_batch()])


def chosen_and_frozen(broken: bool) -> Setup:
    """Only the head is to be trained, and it was frozen with the body."""
    model = BatchNormCNN().requires_grad_(False)
    model.norm_2.requires_grad_()
    model.head.requires_grad_(not broken)
    chosen = [*model.norm_2.parameters(), *model.head.parameters()]
    return Setup(model, class_loss, [images()], torch.optim.SGD(chosen, lr=0.1))


# --- untied -----------------------------------------------------------------------------------------------------------
def claimed_tie(broken: bool) -> Setup:
    model = SmallGPT()
    model.head.weight = nn.Parameter(model.embedding.weight.detach().clone()) if broken else model.embedding.weight
    return Setup(model, next_token_loss, [token_batch()], tied=[("embedding.weight", "head.weight")])


def tie_lost_by_a_copy(broken: bool) -> Setup:
    """Values copied, no claim: the head starts as the embedding."""
    model = SmallGPT()
    if broken:
        model.head.weight.data = model.embedding.weight.data.clone()
    return Setup(model, next_token_loss, [token_batch()])


class Configured(SmallGPT):
    """As a transformers model: a configuration that says tied, and the two getters."""

    class Config:
        tie_word_embeddings = True

    config = Config()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def configured_tie(broken: bool) -> Setup:
    """Materialised anew from an empty model, and tied again or not."""
    model = Configured()
    model.head.weight = nn.Parameter(torch.randn(32, 16) / 4)
    if not broken:
        model.head.weight = model.embedding.weight
    return Setup(model, next_token_loss, [token_batch()])


# --- dead-loss-term, discarded-result ---------------------------------------------------------------------------------
class Experts(nn.Module):
    """Two dense experts, a router, and what its balance loss needs."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts, self.head = nn.Linear(5, 3), nn.Parameter(torch.randn(3, 5, 6) / 2), nn.Linear(6, 3)

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        p_BE = self.router(x_BD).softmax(-1)
        return self.head(torch.einsum("be,bd,edk->bk", p_BE, x_BD, self.experts)), p_BE


def experts(balance) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits_BV, p_BE = model(batch[0])
        return F.cross_entropy(logits_BV, batch[1]) + 0.1 * balance(p_BE)

    return Setup(Experts(), loss, [points()])


def share(p_BE: Tensor) -> Tensor:
    return F.one_hot(p_BE.argmax(-1), p_BE.shape[-1]).float().mean(0)


def balance_by_counts(broken: bool) -> Setup:
    right = lambda p: 3 * (share(p) * p.mean(0)).sum()  # noqa: E731
    wrong = lambda p: 3 * (share(p) * share(p)).sum()  # noqa: E731
    return experts(wrong if broken else right)


def balance_that_is_constant(broken: bool) -> Setup:
    """The mean over the experts of probabilities that sum to one."""
    right = lambda p: 3 * p.mean(0).pow(2).sum()  # noqa: E731
    wrong = lambda p: 3 * p.mean(0).sum()  # noqa: E731
    return experts(wrong if broken else right)


def penalty_detached(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        penalty = sum(p.pow(2).sum() for p in model.parameters())
        if broken:
            penalty = penalty.detach()
        return F.cross_entropy(model(batch[0]), batch[1]) + 1e-3 * penalty

    return Setup(MLP(), loss, [points()])


def smooth_l1_made_anew(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        extra = F.smooth_l1_loss(out, torch.zeros_like(out))
        if broken:
            extra = torch.tensor([float(value) ** 2 for value in out.flatten()]).mean()
        return F.cross_entropy(out, batch[1]) + extra

    return Setup(MLP(), loss, [points()])


def term_by_item(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        size = out.square().mean()
        return F.cross_entropy(out, batch[1]) + (size.item() if broken else size)

    return Setup(MLP(), loss, [points()])


class GAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = MLP((4, 16, 5)), MLP((5, 16, 1))


def generator_behind_a_detach(broken: bool) -> Setup:
    model = GAN()

    def loss(model: nn.Module, noise: Tensor) -> Tensor:
        fake = model.generator(noise)
        return F.softplus(-model.critic(fake.detach() if broken else fake)).mean()

    return Setup(model, loss, [torch.randn(6, 4)], torch.optim.Adam(model.generator.parameters()))


def adversarial_term_detached(broken: bool) -> Setup:
    """A reconstruction and an adversarial term, the second one detached."""
    model = GAN()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        fake = model.generator(batch[0])
        judged = fake.detach() if broken else fake
        return F.mse_loss(fake, batch[1]) + 0.1 * F.softplus(-model.critic(judged)).mean()

    batch = torch.randn(6, 4), torch.randn(6, 5)
    return Setup(model, loss, [batch], torch.optim.Adam(model.generator.parameters()))


class AuxiliaryLoss(torch.autograd.Function):
    """Passes its first input on, and gives the second one a gradient of one in backward."""

    @staticmethod
    def forward(ctx, x, auxiliary):
        ctx.save_for_backward(auxiliary)
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g, torch.ones_like(ctx.saved_tensors[0])


class AutoScaler(nn.Module):
    """The Function as a module, so that its backward can be declared to differ on purpose."""

    def forward(self, y_BV: Tensor, auxiliary: Tensor) -> Tensor:
        return AuxiliaryLoss.apply(y_BV, auxiliary)


class Balanced(Experts):
    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.scaler = AutoScaler()

    def forward(self, x_BD: Tensor) -> Tensor:
        y_BV, p_BE = super().forward(x_BD)
        balance = 0.01 * p_BE.mean(0).pow(2).sum()
        if self.broken:
            self.scaler(y_BV, balance)
        else:
            y_BV = self.scaler(y_BV, balance)
        return y_BV


def scaler_called_for_nothing(broken: bool) -> Setup:
    model = Balanced()
    model.broken = broken
    return Setup(model, class_loss, [points()], surrogate=("scaler",))


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
    Case("P10", "generic", "layers in a Python list", "not-registered", layers_in_a_list, "layers"),
    Case("P11", "generic", "heads in a dict", "not-registered", heads_in_a_dict, "heads"),
    Case("P12", "generic", "a tensor that is no Parameter", "not-registered", plain_tensor, "scale"),
    Case("P13", "generic", "handed over again when unfrozen", "twice-in-optimizer", unfrozen_twice, "head.weight"),
    Case("M25b", "lingua#74", "tied through .data", "twice-in-optimizer", tied_by_data, "head.weight"),
    Case(
        "O12", "peft#2494", "adapters frozen with the rest", "frozen-parameter", adapters_frozen_with_the_rest, "blocks"
    ),
    Case(
        "O12c", "ms-swift PR#9452", "one weight left frozen", "frozen-parameter", one_weight_left_frozen, "blocks.1.up"
    ),
    Case("O12d", "trl#3926", "chosen for training, frozen", "frozen-parameter", chosen_and_frozen, "head"),
    Case("M25", "NeMo Automodel PR#2511", "claimed tie is a copy", "untied", claimed_tie, "head.weight"),
    Case("M25c", "transformers#33689", "configuration says tied", "untied", configured_tie, "head.weight"),
    Case("M25d", "generic", "head starts as a copy", "untied", tie_lost_by_a_copy, "head.weight"),
    Case(
        "L16",
        "hyper-parallel#752",
        "balance loss of a constant",
        "dead-loss-term",
        balance_that_is_constant,
        "p.mean(0)",
    ),
    Case("L16b", "aprender PR#2162", "balance loss by counts alone", "dead-loss-term", balance_by_counts, "share"),
    Case("G22", "aprender#3034", "term of a fresh tensor", "dead-loss-term", smooth_l1_made_anew, "torch.tensor"),
    Case("G22c", "generic", "term added by item()", "dead-loss-term", term_by_item, "size.item()"),
    Case("P14", "generic", "penalty detached", "dead-loss-term", penalty_detached, "penalty.detach()"),
    Case("L20", "image2reverb#37", "generator behind a detach", "dead-loss-term", generator_behind_a_detach, "critic"),
    Case("L20b", "CSA-CDGAN#5", "adversarial term detached", "dead-loss-term", adversarial_term_detached, "critic"),
    Case(
        "G36", "NeMo Automodel#1408", "result discarded", "discarded-result", scaler_called_for_nothing, "AuxiliaryLoss"
    ),
]
