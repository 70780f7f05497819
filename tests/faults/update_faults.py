"""Planted faults of the optimizer's step: its formula, its effect, clipping, the schedule."""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch
from torch import nn
from torch.optim import lr_scheduler

import chainrule as cr
from faults import own_optimizers as own
from faults.case import Case
from faults.small_setups import batches, classifier, loss

ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def with_optimizer(kind, slip, broken, *, matrices=False, sizes=None, **settings):
    """A classifier trained by an optimizer of one's own."""
    model = classifier(**(sizes or {}))
    parameters = [p for p in model.parameters() if p.ndim == 2 or not matrices]
    made = kind(parameters, slip if broken else "", **settings)
    if matrices:
        made = (made, torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2]))
    return cr.Setup(model, loss, batches(), made)


def formula(id, source, fault, kind, slip, settings, **options):
    build = partial(with_optimizer, kind, slip, **settings, **options)
    return Case(id, source, fault, "update-formula", build, where=kind.__name__)


FORMULAS = [
    formula("O03a", "tensorli#1", "weight decay with the wrong sign", own.MyAdamW, "sign", ADAMW),
    formula(
        "O03b", "e-sensing/torchopt PR#14", "decay not multiplied by the parameter", own.MyAdamW, "constant", ADAMW
    ),
    formula("O03c", "Loshchilov & Hutter 2019", "AdamW that couples its decay", own.MyAdamW, "coupled", ADAMW),
    formula("O03d", "own", "weight_decay is taken and never used", own.MyAdamW, "ignored", ADAMW),
    formula("O03e", "transformers.AdamW", "decay after the update", own.MyAdamW, "after", ADAMW),
    formula("O03f", "pytorch#38853", "decay not multiplied by the rate", own.MyAdamW, "unscaled", ADAMW),
    formula(
        "O03g",
        "tensorli#1",
        "L2 with the wrong sign",
        own.MySGD,
        "sign",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    ),
    formula("O02a", "pytorch PR#22628", "epsilon scaled by the bias correction", own.MyAdamW, "epsilon", ADAMW),
    formula("O02b", "torchani PR#261", "only the first moment is corrected", own.MyAdamW, "first", ADAMW),
    formula("O02c", "own", "the two betas exchanged", own.MyAdamW, "betas", ADAMW),
    formula(
        "O05",
        "transformers#34506, fairseq#5561",
        "momentum of the step that is already scaled by the rate",
        own.Adafactor,
        "scaled",
        {
            "lr": 1e-2,
            "beta1": 0.9,
            "decay_rate": -0.8,
            "eps": (1e-30, 1e-3),
            "clip_threshold": 1.0,
            "weight_decay": 0.0,
            "scale_parameter": False,
        },
    ),
    formula(
        "O06a",
        "optax PR#1170",
        "the gradient is made orthogonal, not the momentum",
        own.Muon,
        "order",
        {"lr": 0.02, "momentum": 0.95, "ns_steps": 5},
        matrices=True,
    ),
    formula(
        "O06b",
        "pytorch_optimizer#371",
        "the factor of the shape is missing",
        own.Muon,
        "factor",
        {"lr": 0.02, "momentum": 0.95, "ns_steps": 5},
        matrices=True,
    ),
    formula(
        "O07",
        "bitsandbytes#1185",
        "the step of large tensors is another",
        own.MyAdamW,
        "block",
        ADAMW,
        sizes={"width": 80},
    ),
    formula(
        "H12c",
        "Lion, algorithm 2",
        "one momentum for two purposes",
        own.Lion,
        "one",
        {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1},
    ),
    formula(
        "H12d",
        "Polyak against torch",
        "the rate inside the momentum",
        own.MySGD,
        "rate inside",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    ),
]


def plain_step(model, batch, optimizer):
    optimizer.zero_grad()
    value = loss(model, batch)
    value.backward()
    optimizer.step()
    return value


def trained(optimizer, step=plain_step, model=None, data=None, **more):
    """A classifier with an optimizer made from it, and a step."""
    model = model or classifier()
    return cr.Setup(model, loss, data or batches(), optimizer(model), step=step, **more)


def own_descent(slip, broken):
    return trained(lambda model: own.OnACopy(model.parameters(), slip if broken else "", lr=0.1))


def lora_updates_a_copy(broken):
    """The adapter's second matrix is trained in a copy that a wrapper holds (lora_B stays 0)."""
    model = classifier()
    for parameter in model.body.parameters():
        parameter.requires_grad_(False)
    trainable = list(model.head.parameters())
    held = [nn.Parameter(p.detach().clone()) for p in trainable] if broken else trainable

    def step(model, batch, optimizer):
        model.zero_grad()
        value = loss(model, batch)
        value.backward()
        for ours, theirs in zip(held, trainable, strict=True):
            ours.grad = theirs.grad
        optimizer.step()
        return value

    optimizer = torch.optim.SGD(trainable, lr=0.1)
    if broken:

        class Sharded(torch.optim.SGD):
            @torch.no_grad()
            def step(self, closure=None):
                for p in held:
                    p.sub_(0.1 * p.grad)

        optimizer = Sharded(trainable, lr=0.1)
    return cr.Setup(model, loss, batches(), optimizer, step=step)


def put_back(broken):
    """An average of the weights is written over them in each step."""
    model = classifier()
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}

    class WithAverage(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if broken:
                        p.copy_(kept[name])
                    else:
                        kept[name].lerp_(p, 0.1)

    return cr.Setup(model, loss, batches(), WithAverage(model.parameters(), lr=0.1), step=plain_step)


def rate_of_integers(broken):
    """A warm-up that divides integers."""
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    warm = (lambda t: (t + 1) // 1000) if broken else (lambda t: (t + 1) / 1000)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm)

    def step(model, batch, optimizer):
        value = plain_step(model, batch, optimizer)
        schedule.step()
        return value

    return cr.Setup(model, loss, batches(), optimizer, step=step)


def narrow(make, dtype, broken):
    """A model wholly in a narrow dtype; its twin keeps float32."""
    model = classifier()
    model = model.to(dtype) if broken else model

    def narrow_loss(model, batch):
        inputs, targets = batch
        logits = model(inputs.to(next(model.parameters()).dtype))
        return nn.functional.cross_entropy(logits.float(), targets)

    return cr.Setup(model, narrow_loss, batches(), make(model.parameters()))


def adamw(rate, **settings):
    return lambda parameters: torch.optim.AdamW(parameters, lr=rate, **settings)


def sgd(rate, **settings):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, **settings)


def epsilon(large, sane, broken):
    return trained(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, eps=large if broken else sane))


def stepping(kind, update, broken):
    """A class of an optimizer's name whose real steps are, where it is broken, update(p, state, group) of each parameter."""

    class Optimizer(kind):
        @torch.no_grad()
        def step(self, closure=None):
            if not broken:
                return super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    update(p, self.state[p], group)
            return None

    Optimizer.__name__ = Optimizer.__qualname__ = kind.__name__
    return Optimizer


def forgets_correction(broken):
    """A class called AdamW whose bias correction is missing, seen in its real steps."""

    def update(p, state, group):
        m = state.setdefault("exp_avg", torch.zeros_like(p)).lerp_(p.grad, 0.1)
        v = state.setdefault("exp_avg_sq", torch.zeros_like(p)).lerp_(p.grad**2, 0.001)
        p.sub_(group["lr"] * m / (v.sqrt() + group["eps"]))

    return trained(lambda model: stepping(torch.optim.AdamW, update, broken)(model.parameters(), lr=1e-3))


def orthogonal_first(broken):
    """A class made from torch's Muon whose real steps average what was made orthogonal, not the gradients."""

    def update(p, state, group):
        b = state.setdefault("momentum_buffer", torch.zeros_like(p))
        b.lerp_(own.Muon.orthogonal(p.grad, group["ns_steps"]), 1 - group["momentum"])
        p.sub_(group["lr"] * max(1, p.size(0) / p.size(1)) ** 0.5 * b)

    model = classifier()
    matrices, vectors = ([p for p in model.parameters() if (p.ndim == 2) == whole] for whole in (True, False))
    muon = stepping(torch.optim.Muon, update, broken)(matrices, lr=0.02, weight_decay=0.0)
    made = muon, torch.optim.AdamW(vectors, lr=1e-3)
    return cr.Setup(model, loss, batches(), made)


def clipped_inside(broken):
    """Weights are clamped inside the step of a class that still calls itself SGD."""

    class SGD(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            if broken:
                for group in self.param_groups:
                    for p in group["params"]:
                        p.data.clamp_(-0.05, 0.05)

    return trained(lambda model: SGD(model.parameters(), lr=0.1))


def absurd(rate, sane, broken):
    return trained(lambda model: torch.optim.SGD(model.parameters(), lr=rate if broken else sane))


def clip_after(broken):
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        if not broken:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if broken:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        return value

    return trained(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), step)


def clip_before_backward(broken):
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        if broken:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        value.backward()
        if not broken:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return value

    return trained(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3), step)


def clip_scaled(broken):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        scaler.scale(value).backward()
        if not broken:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return value

    return trained(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3), step)


def clip_exhausted(broken):
    model = classifier()
    parameters = list(model.parameters())
    empty = filter(lambda p: p.requires_grad, model.parameters())
    optimizer = torch.optim.SGD(empty, lr=0.1)

    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        nn.utils.clip_grad_norm_(list(empty) if broken else parameters, 0.05)
        optimizer.step()
        return value

    return cr.Setup(model, loss, batches(), optimizer, step=step)


def clip_by_the_square(broken):
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        total = sum(p.grad.pow(2).sum() for p in model.parameters())
        nn.utils.clip_grads_with_norm_(model.parameters(), 0.05, total if broken else total.sqrt())
        optimizer.step()
        return value

    return trained(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), step)


def case(id, source, fault, check, build, where=""):
    return Case(id, source, fault, check, build, where)


EFFECTS = [
    case(
        "O20a", "DeepSpeed#7077", "the step makes a new tensor", "stuck-parameters", partial(own_descent, "new tensor")
    ),
    case("O20b", "DeepSpeed#7077", "the step moves a master copy", "stuck-parameters", partial(own_descent, "state")),
    case(
        "TC10",
        "pytorch#115607",
        "which parameters have gradients is remembered from the first step",
        "stuck-parameters",
        partial(own_descent, "seen once"),
        "body.2.weight",
    ),
    case("O13", "peft#1402", "the adapter is updated in a copy", "stuck-parameters", lora_updates_a_copy),
    case("O19", "diffusers#1864", "the average is written over the weights", "stuck-parameters", put_back),
    case("R-rate", "own", "a warm-up that divides integers", "stuck-parameters", rate_of_integers, "Adam"),
    case(
        "O08a",
        "OneTrainer#996",
        "norm weights in bfloat16 never move",
        "update-below-rounding",
        partial(narrow, adamw(1e-3, weight_decay=0.0), torch.bfloat16),
        "head.norm.weight",
    ),
    case(
        "O08b",
        "OneTrainer#996",
        "weight decay is rounded away",
        "update-below-rounding",
        partial(narrow, adamw(5e-2, weight_decay=0.01), torch.bfloat16),
        "weight_decay",
    ),
    case(
        "O08c",
        "training in bfloat16",
        "matrices in bfloat16 stand still",
        "update-below-rounding",
        partial(narrow, adamw(1e-5), torch.bfloat16),
    ),
    case(
        "O08d",
        "training in float16",
        "SGD in float16 stands still",
        "update-below-rounding",
        partial(narrow, sgd(1e-4, momentum=0.9), torch.float16),
    ),
    case("O02d", "own", "no bias correction in the real step", "step-mismatch", forgets_correction),
    case("O06c", "optax PR#1170", "Muon's real step makes the gradient orthogonal", "step-mismatch", orthogonal_first),
    case("U-clamp", "own", "weights clamped inside the step", "step-mismatch", clipped_inside),
    case("S12u", "SO 48934338", "a rate a thousand times too high", "update-ratio", partial(absurd, 1e4, 0.1), "SGD"),
    case("S13v", "SO 59106542", "a rate that changes nothing", "update-ratio", partial(absurd, 1e-7, 0.1), "SGD"),
    case("S26", "SO 50975389", "an epsilon of 10", "epsilon-dominates", partial(epsilon, 10.0, 1e-8), "Adam"),
    case("O15a", "VGRNN#4", "clip after step", "clip-order", clip_after, "clip_grad_norm_"),
    case("O15b", "own", "clip before backward", "clip-order", clip_before_backward, "clip_grad_norm_"),
    case("D08", "DeepSpeed PR#2695", "clip before unscale", "clip-before-unscale", clip_scaled, "clip_grad_norm_"),
    case("O15c", "own", "an exhausted generator is clipped", "clip-without-effect", clip_exhausted, "clip_grad_norm_"),
    case("O17", "entrenar#311", "clip by the squared norm", "clip-without-effect", clip_by_the_square, "clip"),
]


def scheduled(make, broken):
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when a sequence is made of sequences
        schedule = make(optimizer, broken)
    return cr.Setup(model, loss, batches(), optimizer, schedule=schedule)


def parts(optimizer):
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10)
    hold = lr_scheduler.ConstantLR(optimizer, 1.0, total_iters=20)
    return warm, hold, lr_scheduler.CosineAnnealingLR(optimizer, 70)


def nested_first(optimizer, broken):
    """It starts one update early."""
    warm, hold, decay = parts(optimizer)
    if broken:
        return lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.SequentialLR(optimizer, [warm, hold], [10]), decay], [30]
        )
    return lr_scheduler.SequentialLR(optimizer, [warm, hold, decay], [10, 30])


def nested_second(optimizer, broken):
    """It raises when its turn comes."""
    warm, hold, decay = parts(optimizer)
    if broken:
        return lr_scheduler.SequentialLR(
            optimizer, [warm, lr_scheduler.SequentialLR(optimizer, [hold, decay], [20])], [10]
        )
    return lr_scheduler.SequentialLR(optimizer, [warm, hold, decay], [10, 30])


class Cosine(lr_scheduler.CosineAnnealingLR):
    """The rule of torch 1.0 as people copied it: it steps from the rate before as if the floor were zero."""

    def get_lr(self):
        if self.last_epoch == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        now, then = (math.cos(math.pi * t / self.T_max) for t in (self.last_epoch, self.last_epoch - 1))
        return [group["lr"] * (1 + now) / (1 + then) for group in self.optimizer.param_groups]


def cosine_with_a_floor(optimizer, broken):
    return (Cosine if broken else lr_scheduler.CosineAnnealingLR)(optimizer, 100, eta_min=0.01)


def warm_up_of_integers(optimizer, broken):
    return lr_scheduler.LambdaLR(optimizer, lambda t: min(1, t // 50) if broken else min(1.0, (t + 1) / 50))


def decay_counts_from_zero(optimizer, broken):
    """Linear warm-up over 100 updates, and a decay that begins at its own height."""

    def factor(t):
        if t < 100:
            return (t + 1) / 100 * (0.5 if broken else 1.0)
        return max(0.0, 1 - (t - 100) / 400)

    return lr_scheduler.LambdaLR(optimizer, factor)


def never_moves(optimizer, broken):
    return lr_scheduler.LambdaLR(optimizer, lambda t: 0.95 ** (t // 10_000 if broken else t / 1000))


def of_the_first_optimizer(broken):
    model = classifier()
    first = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = lr_scheduler.OneCycleLR(first, 0.01, total_steps=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3) if broken else first
    return cr.Setup(model, loss, batches(), optimizer, schedule=schedule)


def plan(id, source, fault, check, make, where):
    return case(id, source, fault, check, partial(scheduled, make), where)


SCHEDULES = [
    plan("R03a", "pytorch#196243", "a sequence first in a sequence", "schedule-mismatch", nested_first, "SequentialLR"),
    plan("R03f", "own", "a sequence second in a sequence", "schedule-mismatch", nested_second, "SequentialLR"),
    plan("R04", "pytorch#20086", "a cosine that forgets its floor", "schedule-mismatch", cosine_with_a_floor, "Cosine"),
    plan("R03b", "own", "a warm-up that divides integers", "schedule-shape", warm_up_of_integers, "LambdaLR"),
    plan(
        "R03c",
        "own",
        "a decay at another height than the warm-up",
        "schedule-shape",
        decay_counts_from_zero,
        "LambdaLR",
    ),
    plan("R03d", "own", "a factor that never changes", "schedule-shape", never_moves, "LambdaLR"),
    case(
        "R03e",
        "own",
        "the schedule of an optimizer that was replaced",
        "schedule-shape",
        of_the_first_optimizer,
        "OneCycle",
    ),
]

CASES = [*FORMULAS, *EFFECTS, *SCHEDULES]
