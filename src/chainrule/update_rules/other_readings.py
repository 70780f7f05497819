"""Other readings of SGD, RMSprop, Adagrad, Lion, Muon and Adafactor under the same names, and slips that fit any rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import Tensor

from chainrule.update_rules.adafactor import rms, second_moment
from chainrule.update_rules.muon import MUON, orthogonal, scale
from chainrule.update_rules.rule import Settings, State, Update, UpdateRule, count, number, pair, uphill, zeros

Alter = Callable[[Settings], Settings]


def heavy_ball(
    param: Tensor, grad: Tensor, state: State, settings: Settings, *, share: float | None, inside: bool
) -> tuple[Tensor, dict[str, Any]]:
    """b ← μ b + share·d with the rate inside the momentum or outside; share None: 1 - μ."""
    momentum, rate = number(settings, "momentum"), number(settings, "lr")
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    new = (1 - momentum if share is None else share) * direction * (rate if inside else 1.0)
    buffer = momentum * zeros(state, "momentum_buffer", param) + new
    return param - buffer * (1.0 if inside else rate), {"momentum_buffer": buffer}


def decoupled(
    param: Tensor, grad: Tensor, state: State, settings: Settings, *, rule: Update
) -> tuple[Tensor, dict[str, Any]]:
    """The rule without its decay, and p ← p - γλp beside it."""
    moved, new = rule(param, grad, state, {**settings, "weight_decay": 0.0})
    return moved - number(settings, "lr") * number(settings, "weight_decay") * param, new


def rmsprop_inside(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ d/√(v + ε), without momentum."""
    alpha = number(settings, "alpha")
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    square = alpha * zeros(state, "square_avg", param) + (1 - alpha) * direction**2
    return param - number(settings, "lr") * direction / (square + number(settings, "eps")).sqrt(), {
        "square_avg": square
    }


def adagrad_without_root(
    param: Tensor, grad: Tensor, state: State, settings: Settings
) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ d/(Σd² + ε)."""
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    total = zeros(state, "sum", param) + direction**2
    return param - number(settings, "lr") * direction / (total + number(settings, "eps")), {"sum": total}


def lion_one_momentum(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """m ← β1 m + (1 - β1) g;  p ← p - γ (sign(m) + λp)."""
    beta1, _ = pair(settings)
    mean = beta1 * zeros(state, "exp_avg", param) + (1 - beta1) * uphill(grad, settings)
    step = mean.sign() + number(settings, "weight_decay") * param
    return param - number(settings, "lr") * step, {"exp_avg": mean}


def muon_gradient_first(
    param: Tensor, grad: Tensor, state: State, settings: Settings, *, share: bool
) -> tuple[Tensor, dict[str, Any]]:
    """b ← μ b + NS(g): the gradient is made orthogonal, then averaged."""
    momentum, rate = number(settings, "momentum"), number(settings, "lr")
    new = orthogonal(grad, settings) * (1 - momentum if share else 1.0)
    buffer = momentum * zeros(state, "momentum_buffer", param) + new
    step = scale(param, settings) * buffer
    return param - rate * number(settings, "weight_decay") * param - rate * step, {"momentum_buffer": buffer}


def adafactor_momentum(
    param: Tensor, grad: Tensor, state: State, settings: Settings, *, scaled: bool
) -> tuple[Tensor, dict[str, Any]]:
    """Adafactor with β1: the momentum of u, or of the step γu that is already scaled by the rate (Tensor2Tensor)."""
    t, beta1 = count(state), number(settings, "beta1")
    eps1, eps2 = settings["eps"]
    square, new = second_moment(grad**2 + eps1, state, t ** number(settings, "decay_rate"), 0.0)
    unit = grad / square.sqrt()
    unit = unit / max(1.0, rms(unit) / number(settings, "clip_threshold"))
    rate = number(settings, "lr") * (max(eps2, rms(param)) if settings.get("scale_parameter") else 1.0)
    mean = beta1 * zeros(state, "exp_avg", param) + (1 - beta1) * unit * (rate if scaled else 1.0)
    decayed = number(settings, "weight_decay") * number(settings, "lr") * param
    return param - decayed - mean * (1.0 if scaled else rate), {"step": t, "exp_avg": mean, **new}


def altered(
    param: Tensor, grad: Tensor, state: State, settings: Settings, *, rule: Update, alter: Alter
) -> tuple[Tensor, dict[str, Any]]:
    """The rule with other settings."""
    return rule(param, grad, state, alter(settings))


def slips(rule: UpdateRule) -> tuple[UpdateRule, ...]:
    """What goes wrong in any rule: uphill, decay with the wrong sign, decay forgotten, betas exchanged."""

    def slip(name: str, remark: str, alter: Alter) -> UpdateRule:
        formula = partial(altered, rule=rule.update, alter=alter)
        return replace(
            rule, name=f"{rule.name} {name}", update=formula, standing="wrong", family=rule.name, remark=remark
        )

    found = [
        slip(
            "uphill",
            "It climbs: the sign of the gradient is wrong.",
            lambda s: {**s, "maximize": not s.get("maximize"), "weight_decay": -number(s, "weight_decay")},
        ),
        slip(
            "uphill, decay downhill",
            "It climbs: the sign of the gradient is wrong.",
            lambda s: {**s, "maximize": not s.get("maximize")},
        ),
        slip(
            "with decay of the wrong sign",
            "Weights grow where they should shrink.",
            lambda s: {**s, "weight_decay": -number(s, "weight_decay")},
        ),
        slip("without decay", "weight_decay is taken and never used.", lambda s: {**s, "weight_decay": 0.0}),
    ]
    if "betas" in rule.needs:
        found.append(
            slip("with β1 and β2 exchanged", "β1 belongs to m, β2 to v.", lambda s: {**s, "betas": pair(s)[::-1]})
        )
    return tuple(found)


def reading(
    family: str,
    name: str,
    update: Update,
    remark: str,
    *,
    needs: tuple[str, ...] = ("lr",),
    standing: Literal["standard", "disputed", "wrong"] = "disputed",
    like: UpdateRule | None = None,
) -> UpdateRule:
    """Another reading of a family's formula; what it shares with the standard one is taken from `like`."""
    like = like or UpdateRule(family, update)
    return replace(like, name=name, update=update, needs=needs, standing=standing, family=family, remark=remark)


_MOMENTUM = ("lr", "momentum")
_T2T = ("lr", "beta1", "eps", "decay_rate", "clip_threshold")
OTHER_READINGS = (
    reading(
        "SGD",
        "SGD with the rate inside the momentum",
        partial(heavy_ball, share=1.0, inside=True),
        "Polyak's form: once the rate changes, the old rate lives on in the momentum; torch multiplies by it outside.",
        needs=_MOMENTUM,
    ),
    reading(
        "SGD",
        "SGD with an averaged momentum",
        partial(heavy_ball, share=None, inside=False),
        "Steps are 1-μ times as long as torch's: a rate tuned for one is 10 times wrong for the other at μ = 0.9.",
        needs=_MOMENTUM,
    ),
    reading(
        "RMSprop",
        "RMSprop with ε inside the root",
        rmsprop_inside,
        "√(v + ε), as TensorFlow: ε acts like √ε.",
        needs=("lr", "alpha", "eps"),
    ),
    reading(
        "Adagrad",
        "Adagrad without the root",
        adagrad_without_root,
        "The step falls like 1/Σg² where it should fall like 1/√Σg².",
        needs=("lr", "eps", "lr_decay"),
        standing="wrong",
    ),
    reading(
        "Lion",
        "Lion with one momentum",
        lion_one_momentum,
        "It is signSGD with momentum: β2 is never used. The sign takes β1, what is remembered β2.",
        needs=("lr", "betas"),
        standing="wrong",
    ),
    *(
        reading(
            "Muon",
            "Muon that makes the gradient orthogonal and then averages",
            partial(muon_gradient_first, share=share),
            "The momentum must be made orthogonal: a mean of orthogonal matrices is none, and noise is amplified first.",
            needs=_MOMENTUM,
            standing="wrong",
            like=MUON,
        )
        for share in (True, False)
    ),
    reading(
        "Muon",
        "Muon without the factor of the shape",
        partial(altered, rule=MUON.update, alter=lambda s: {**s, "adjust_lr_fn": "none"}),
        "Tall matrices move √(rows/columns) times less than torch's.",
        needs=_MOMENTUM,
        like=MUON,
    ),
    reading(
        "Adafactor",
        "Adafactor with the momentum of the scaled step",
        partial(adafactor_momentum, scaled=True),
        "As in Tensor2Tensor and transformers: once the rate changes, the old rate lives on in the momentum.",
        needs=_T2T,
    ),
    reading(
        "Adafactor",
        "Adafactor with momentum",
        partial(adafactor_momentum, scaled=False),
        "",
        needs=_T2T,
        standing="standard",
    ),
)
