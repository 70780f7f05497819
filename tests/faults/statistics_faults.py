"""Planted faults of data, losses, initial weights and activations, each with its repaired twin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chainrule import Setup
from faults.case import Case
from faults.hosts import (
    CLASSES,
    CNN,
    FEATURES,
    HIDDEN,
    LM,
    Body,
    Net,
    classes,
    cross_entropy,
    images,
    next_token,
    numbers,
    seeded,
    setup,
    squared,
    windows,
)

Batch = tuple[Tensor, Tensor]


# --- shapes and targets -----------------------------------------------------------------------------------------------


@seeded
def broadcast_by_hand(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        prediction = model(batch[0]) if broken else model(batch[0]).squeeze(1)
        return ((prediction - batch[1]) ** 2).mean()

    return setup(Net(1), loss, numbers())


@seeded
def broadcast_in_l1(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.l1_loss(model(batch[0]), batch[1] if broken else batch[1][:, None])

    return setup(Net(1), loss, numbers())


@seeded
def broadcast_of_a_margin(broken: bool) -> Setup:
    """A hinge: labels of -1 and 1 times the score."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        score = model(batch[0]) if broken else model(batch[0]).flatten()
        return F.relu(1 - score * batch[1].sign()).mean()

    return setup(Net(1), loss, numbers())


@seeded
def three_classes_one_sigmoid(broken: bool) -> Setup:
    x, labels = classes(number=3 if broken else 2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), batch[1].float())

    return setup(Net(1), loss, (x, labels))


@seeded
def labels_minus_one(broken: bool) -> Setup:
    """Labels of -1 and 1, made for a hinge, in a binary cross entropy."""
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        target = 2 * batch[1].float() - 1 if broken else batch[1].float()
        return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), target)

    return setup(Net(1), loss, (x, labels))


@seeded
def several_labels_in_a_softmax(broken: bool) -> Setup:
    labels = torch.arange(32) % CLASSES
    several = F.one_hot(labels, CLASSES) + F.one_hot((labels + 1) % CLASSES, CLASSES)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        compare = F.cross_entropy if broken else F.binary_cross_entropy_with_logits
        return compare(model(batch[0]), batch[1].float())

    return setup(CNN(), loss, (torch.randn(32, 3, 8, 8), several))


@seeded
def all_labels_zero(broken: bool) -> Setup:
    x, labels = images(32)
    return setup(CNN(), cross_entropy, (x, labels * 20 // 255 if broken else labels))


@seeded
def constant_regression_target(broken: bool) -> Setup:
    x, y = numbers()
    return setup(Net(1), squared, (x, torch.full_like(y, 0.7) if broken else y))


@seeded
def probabilities_in_nll(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.nll_loss(model(batch[0]), batch[1])

    return setup(Net(last=nn.Softmax(1) if broken else nn.LogSoftmax(1)), loss, classes())


@seeded
def scores_in_nll(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.nll_loss(model(batch[0]), batch[1])

    return setup(Net(last=nn.Identity() if broken else nn.LogSoftmax(1)), loss, classes())


@seeded
def distillation_of_probabilities(broken: bool) -> Setup:
    """kl_div wants the log of the student's probabilities."""
    x, labels = classes()
    teacher = F.one_hot(labels, CLASSES) * 0.8 + 0.04

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        student = model(batch[0])
        student = student.softmax(-1) if broken else student.log_softmax(-1)
        return F.kl_div(student, batch[1], reduction="batchmean")

    return setup(Net(), loss, (x, teacher))


# --- softmaxes and last activations -----------------------------------------------------------------------------------


@seeded
def softmax_before_cross_entropy(broken: bool) -> Setup:
    model = CNN()
    model.classifier = nn.Sequential(model.classifier, nn.Softmax(1) if broken else nn.Identity())
    return setup(model, cross_entropy, images())


@seeded
def softmax_before_log_softmax(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.nll_loss(model(batch[0]).log_softmax(1), batch[1])

    return setup(Net(last=nn.Softmax(1) if broken else nn.LogSoftmax(1)), loss, classes())


@seeded
def softmax_in_a_language_model(broken: bool) -> Setup:
    class Probable(LM):
        def forward(self, ids_BT: Tensor) -> Tensor:
            logits = super().forward(ids_BT)
            return logits.softmax(-1) if broken else logits

    return setup(Probable(), next_token, windows())


@seeded
def sigmoid_twice(broken: bool) -> Setup:
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), batch[1].float())

    return setup(Net(1, last=nn.Sigmoid() if broken else None), loss, (x, labels))


@seeded
def sigmoid_before_cross_entropy(broken: bool) -> Setup:
    return setup(Net(last=nn.Sigmoid() if broken else None), cross_entropy, classes())


@seeded
def softmax_over_one_unit(broken: bool) -> Setup:
    """Binary labels with a softmax over one output: probability 1, loss 0, gradient 0."""
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        p = model(batch[0]).softmax(1)
        return -(F.one_hot(batch[1], 2)[:, : p.shape[1]] * p.log()).sum(1).mean()

    return setup(Net(1 if broken else 2), loss, (x, labels))


@seeded
def cross_entropy_over_one_unit(broken: bool) -> Setup:
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]), torch.zeros_like(batch[1]) if broken else batch[1])

    return setup(Net(1 if broken else 2), loss, (x, labels))


@seeded
def sigmoid_for_prices(broken: bool) -> Setup:
    x, y = numbers()
    return setup(Net(1, last=nn.Sigmoid() if broken else None), squared, (x, y.abs() * 700))


@seeded
def tanh_for_temperatures(broken: bool) -> Setup:
    x, y = numbers()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0])[:, 0] - batch[1]).abs().mean()

    return setup(Net(1, last=nn.Tanh()), loss, (x, 20 + 5 * y if broken else y.tanh()))


@seeded
def relu_for_negative_targets(broken: bool) -> Setup:
    x, y = numbers()
    return setup(Net(1, last=nn.ReLU()), squared, (x, y if broken else y.abs()))


@seeded
def minus_the_loss(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        sign = -1 if broken else 1
        return sign * next_token(model, batch)

    return setup(LM(), loss, windows())


@seeded
def minus_an_auxiliary_loss(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        reconstruction = F.mse_loss(model.body(batch[0])[:, :FEATURES], batch[0].relu())
        return cross_entropy(model, batch) + (-0.1 if broken else 0.1) * reconstruction

    return setup(Net(), loss, classes())


# --- scale and initial weights ----------------------------------------------------------------------------------------


@seeded
def weights_of_variance_one(broken: bool) -> Setup:
    model = Net()
    for layer in (model.body.first, model.body.second, model.head):
        nn.init.normal_(layer.weight, std=1.0 if broken else layer.in_features**-0.5)
    return setup(model, cross_entropy, classes(64))


@seeded
def overscaled_outputs(broken: bool) -> Setup:
    class Scaled(LM):
        def forward(self, ids_BT: Tensor) -> Tensor:
            return super().forward(ids_BT) * (40.0 if broken else 1.0)

    return setup(Scaled(), next_token, windows(8, 12))


@seeded
def a_saturated_probability(broken: bool) -> Setup:
    """Loss 69 in place of 0.7: a sigmoid of hundreds."""
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.binary_cross_entropy(model(batch[0]).squeeze(1), batch[1].float())

    return setup(Net(1, last=nn.Sigmoid()), loss, (x * (3000 if broken else 1), labels))


@seeded
def weights_of_variance_one_are_named(broken: bool) -> Setup:
    model = CNN()
    nn.init.normal_(model.features[3].weight, std=1.0 if broken else 0.1)
    return setup(model, cross_entropy, images())


@seeded
def weights_almost_zero(broken: bool) -> Setup:
    model = Net()
    for layer in (model.body.first, model.body.second, model.head):
        nn.init.normal_(layer.weight, std=1e-4 if broken else 0.2)
    return setup(model, cross_entropy, classes())


@seeded
def pixels_of_255(broken: bool) -> Setup:
    x, labels = images()
    pixels = (x.sigmoid() * 255).to(torch.uint8)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        x = batch[0].float()
        return F.cross_entropy(model(x if broken else x / 255), batch[1])

    return setup(CNN(), loss, (pixels, labels))


@seeded
def features_of_1400(broken: bool) -> Setup:
    """One column in other units than the rest."""
    x, y = numbers()
    scale = torch.ones(FEATURES)
    scale[3] = 1400.0 if broken else 1.0
    return setup(Net(1), squared, (x * scale, y))


@seeded
def constant_weights(broken: bool) -> Setup:
    model = Net(body=Body(nn.Tanh))
    for layer in (model.body.first, model.body.second, model.head):
        if broken:
            nn.init.constant_(layer.weight, 0.05)
            nn.init.zeros_(layer.bias)
    return setup(model, cross_entropy, classes())


@seeded
def constant_filters(broken: bool) -> Setup:
    model = CNN()
    if broken:
        for layer in (model.features[0], model.features[3], model.classifier):
            nn.init.constant_(layer.weight, 0.02)
            nn.init.zeros_(layer.bias)
    return setup(model, cross_entropy, images())


@seeded
def negative_bias(broken: bool) -> Setup:
    model = Net()
    nn.init.constant_(model.body.second.bias, -8.0 if broken else 0.0)
    return setup(model, cross_entropy, classes())


@seeded
def relu_after_outputs(broken: bool) -> Setup:
    """Unscaled data and a ReLU as the last activation: nearly all outputs exactly zero."""
    x, labels = classes(number=2)
    model = Net(10, last=nn.ReLU() if broken else None)
    with torch.no_grad():
        model.head.bias[1:] -= 30.0 if broken else 0.0
    return setup(model, cross_entropy, (x, labels))


@seeded
def saturated_tanh(broken: bool) -> Setup:
    model = Net(body=Body(nn.Tanh))
    nn.init.normal_(model.body.second.weight, std=3.0 if broken else 0.2)
    return setup(model, cross_entropy, classes())


def tower(act: type[nn.Module], depth: int, std: float | None = None) -> nn.Module:
    layers = [nn.Linear(HIDDEN, HIDDEN) for _ in range(depth)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=std or (2 / HIDDEN) ** 0.5)
    return nn.Sequential(Body(), *(nn.Sequential(layer, act()) for layer in layers))


@seeded
def deep_sigmoids(broken: bool) -> Setup:
    return setup(Net(body=tower(nn.Sigmoid if broken else nn.ReLU, 8)), cross_entropy, classes())


@seeded
def exploding_depth(broken: bool) -> Setup:
    """Weights that double the signal in every layer behind a tanh that squashes it again at the end."""
    body = tower(nn.Tanh, 22, 0.9 if broken else HIDDEN**-0.5)
    return setup(Net(body=body), cross_entropy, classes())


@seeded
def no_activation(broken: bool) -> Setup:
    return setup(Net(body=Body(nn.Identity if broken else nn.GELU)), cross_entropy, classes())


@seeded
def convolutions_without_activation(broken: bool) -> Setup:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x) if broken else self.one(x).relu()
            return self.head(self.two(x).relu().mean((2, 3)))

    return setup(Plain(), cross_entropy, images())


@seeded
def too_strong_penalty(broken: bool) -> Setup:
    factor = 10.0 if broken else 1e-4

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        penalty = sum(p.square().sum() for p in model.parameters())
        return next_token(model, batch) + factor * penalty

    return setup(LM(), loss, windows())


@seeded
def batch_norm_never_measured(broken: bool) -> Setup:
    model = CNN()
    model.features[1] = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
    if broken:
        model.features[1][0].eval()
    return setup(model, cross_entropy, images())


@seeded
def momentum_of_another_library(broken: bool) -> Setup:
    model = CNN()
    model.features[1] = nn.Sequential(nn.BatchNorm2d(8, momentum=0.99 if broken else 0.01), nn.ReLU())
    return setup(model, cross_entropy, images())


# --- what the first steps show ----------------------------------------------------------------------------------------


class Descent(torch.optim.Optimizer):
    """Gradient descent as one would write it oneself; uphill if the sign is wrong."""

    def __init__(self, parameters, lr: float, sign: float) -> None:
        super().__init__(parameters, {"lr": lr, "sign": sign})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=group["sign"] * group["lr"])


@seeded
def uphill(broken: bool) -> Setup:
    model = LM()
    return setup(model, next_token, windows(), optimizer=Descent(model.parameters(), 0.1, 1.0 if broken else -1.0))


@seeded
def rate_far_too_high(broken: bool) -> Setup:
    model = Net(1)
    x, y = numbers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return setup(model, squared, (x * 10, y * 50) if broken else (x, y), optimizer=optimizer)


LIGHTNING, POST = "lightning-bolts#654", "StackOverflow "
CASES = (
    Case("S34a", POST + "47034888", "(B,1) minus (B,)", "shape-broadcast", broadcast_by_hand, "prediction - batch[1]"),
    Case("S34b", POST + "38399609", "l1_loss of (B,1) and (B,)", "shape-broadcast", broadcast_in_l1, "l1_loss"),
    Case("S34c", "generic", "(B,1) times labels (B,)", "shape-broadcast", broadcast_of_a_margin, "score *"),
    Case("S07a", POST + "50079585", "3 classes, one sigmoid", "label-range", three_classes_one_sigmoid, "binary_cross"),
    Case("S07b", POST + "50481178", "labels -1 and 1 in BCE", "label-range", labels_minus_one, "binary_cross_entropy"),
    Case("S08", POST + "44164749", "several labels, softmax", "label-range", several_labels_in_a_softmax, "compare("),
    Case("S16a", POST + "59325381", "labels divided by 255", "constant-labels", all_labels_zero, "cross_entropy"),
    Case("S16b", "generic", "target column is constant", "constant-labels", constant_regression_target, "mse_loss"),
    Case("L15a", "generic", "softmax into nll_loss", "not-log-probabilities", probabilities_in_nll, "nll_loss"),
    Case("L15b", "generic", "raw scores into nll_loss", "not-log-probabilities", scores_in_nll, "nll_loss"),
    Case("L13", "LD#74", "kl_div of probabilities", "not-log-probabilities", distillation_of_probabilities, "kl_div"),
    Case("L08a", LIGHTNING, "softmax before CE", "softmax-twice", softmax_before_cross_entropy, "classifier"),
    Case("L08b", "CGES#1", "softmax before log_softmax", "softmax-twice", softmax_before_log_softmax, "last.softmax"),
    Case("S20", POST + "52575271", "softmax inside the LM", "softmax-twice", softmax_in_a_language_model, "softmax"),
    Case("S38a", "thedeepchecker", "sigmoid before BCE with logits", "softmax-twice", sigmoid_twice, "last.sigmoid"),
    Case("S09", POST + "51930566", "sigmoid before CE", "softmax-twice", sigmoid_before_cross_entropy, "last.sigmoid"),
    Case("S03a", POST + "31627380", "softmax over one unit", "softmax-over-one", softmax_over_one_unit, "softmax(1)"),
    Case(
        "S03b", POST + "57326611", "CE over one unit", "softmax-over-one", cross_entropy_over_one_unit, "cross_entropy"
    ),
    Case("S10a", POST + "48221692", "sigmoid for 0..1400", "bounded-output", sigmoid_for_prices, "last.sigmoid"),
    Case("S10b", POST + "57200621", "tanh for temperatures", "bounded-output", tanh_for_temperatures, "last.tanh"),
    Case("S10c", POST + "37898795", "relu for negative targets", "bounded-output", relu_for_negative_targets, "last"),
    Case("S38b", "thedeepchecker", "loss = -loss", "flipped-sign", minus_the_loss, "F.cross_entropy"),
    Case("S38c", "thedeepchecker", "a term with the wrong sign", "flipped-sign", minus_an_auxiliary_loss, "mse_loss"),
    Case("S18a", POST + "56541683", "weights N(0, 1)", "initial-loss", weights_of_variance_one, "cross_entropy"),
    Case("S38d", "thedeepchecker", "outputs 40 times too large", "initial-loss", overscaled_outputs, "cross_entropy"),
    Case("S04a", POST + "44066044", "unscaled data, loss 69", "initial-loss", a_saturated_probability, "binary_cross"),
    Case(
        "S18b", POST + "61498304", "N(0, 1) filters", "initial-weights", weights_of_variance_one_are_named, "features.3"
    ),
    Case("S18c", POST + "38321024", "weights of 1e-4", "initial-weights", weights_almost_zero, "body.second"),
    Case("S04b", POST + "60801900", "pixels 0..255", "unscaled-inputs", pixels_of_255, "features.0"),
    Case("S04c", POST + "62313327", "one column of 1400", "unscaled-inputs", features_of_1400, "body.first"),
    Case("S18d", POST + "53138899", "constant weights", "identical-units", constant_weights, "body.first.weight"),
    Case("S18e", POST + "43564627", "constant filters", "identical-units", constant_filters, "features.3.weight"),
    Case("S04d", POST + "48251943", "layer dead by its bias", "dead-units", negative_bias, "body.act"),
    Case("S04e", POST + "44450841", "output ReLU, .9 zero", "dead-units", relu_after_outputs, "last.relu"),
    Case("S18f", POST + "43489697", "saturated tanh", "saturated-units", saturated_tanh, "body.act"),
    Case("S38e", "thedeepchecker", "ten sigmoid layers", "depth-profile", deep_sigmoids, "body"),
    Case("S18g", POST + "40147568", "gradient explodes", "depth-profile", exploding_depth, "body"),
    Case("S38f", "thedeepchecker", "no activation", "linear-stack", no_activation, "body.second"),
    Case("S39", "DeepLocalize GitHub", "convolutions in a row", "linear-stack", convolutions_without_activation, "two"),
    Case("S27", POST + "51028324", "penalty overwhelms", "penalty-dominates", too_strong_penalty, "p.square()"),
    Case("S36a", POST + "52282108", "batch norm idle", "idle-batch-norm", batch_norm_never_measured, "features.1.0"),
    Case("S36b", POST + "43436966", "momentum .99", "idle-batch-norm", momentum_of_another_library, "features.1.0"),
    Case("S38g", "thedeepchecker", "a step uphill", "loss-rises", uphill, "Descent", "k"),
    Case("S12", POST + "48934338", "rate too high", "loss-diverges", rate_far_too_high, "", "k"),
)
