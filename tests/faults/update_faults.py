"""Planted faults of the optimizer's step: its formula, its effect, clipping, the schedule."""

from __future__ import annotations

from functools import partial

import chainrule as cr
from faults import own_optimizers as own
from faults.case import Case
from faults.small_setups import batches, classifier, loss

ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def with_optimizer(kind, slip, broken, *, matrices=False, sizes=None, **settings):
    """A classifier trained by an optimizer of one's own."""
    model = classifier(**(sizes or {}))
    parameters = [p for p in model.parameters() if p.ndim == 2 or not matrices]
    return cr.Setup(model, loss, batches(), kind(parameters, slip if broken else "", **settings))


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

CASES = FORMULAS
