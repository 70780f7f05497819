"""Other readings of Adam and AdamW under the same names: where the decay stands, where ε stands, which moments are corrected.

One formula with three switches; every combination of them has a name, a standing and a remark. The standard ones stand in
`adam.py` and `adamw.py`, written on their own.

    m = β1 m + (1 - β1) d,   v = β2 v + (1 - β2) d²,   s = m̂ / (√v̂ + ε),   p ← p - γ s  with decay
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import Tensor

from chainrule.update_rules.adam import NEEDS
from chainrule.update_rules.rule import Settings, State, UpdateRule, count, number, pair, uphill, zeros


class Switch(NamedTuple):
    """One choice: its words in a name, how it stands, what it does."""

    words: str
    standing: Literal["standard", "disputed", "wrong"]
    remark: str = ""


DECAYS: Mapping[str, Switch] = MappingProxyType(
    {
        "coupled": Switch("", "standard"),
        "decoupled": Switch("", "standard"),
        "after": Switch(
            "decay after the update",
            "disputed",
            "It decays the updated weight: another by γ²λ (transformers.AdamW had it).",
        ),
        "unscaled": Switch(
            "decay not multiplied by the rate",
            "disputed",
            "It stays as strong while the rate falls: λ' of the paper, not torch's (pytorch#38853); use λ' = γλ.",
        ),
        "growing": Switch(
            "decay with the wrong sign", "wrong", "Weights grow by γλ each step where they should shrink: p - γλp."
        ),
        "growing inside": Switch(
            "L2 decay with the wrong sign", "wrong", "Weights are pushed away from zero; the gradient takes + λp."
        ),
        "constant": Switch(
            "decay not multiplied by the parameter", "wrong", "Every entry moves by the constant γλ: multiply by p."
        ),
        "ignored": Switch("no decay at all", "wrong", "weight_decay is taken and never used."),
    }
)
EPSILONS: Mapping[str, Switch] = MappingProxyType(
    {
        "outside": Switch("", "standard"),
        "scaled": Switch(
            "ε scaled by the bias correction",
            "disputed",
            'γ√(1-β2ᵗ)/(1-β1ᵗ) · m/(√v + ε): the "ε̂" form, in which ε is larger by 1/√(1-β2ᵗ), 30 times at the first step.',
        ),
        "inside": Switch(
            "ε inside the root", "disputed", "√(v̂ + ε) makes ε act like √ε: 1e-8 becomes 1e-4; give ε² to mean ε."
        ),
    }
)
CORRECTIONS: Mapping[str, Switch] = MappingProxyType(
    {
        "both": Switch("", "standard"),
        "none": Switch(
            "no bias correction",
            "disputed",
            "The first steps are (1-β1)/√(1-β2) times as long, 3.2 times by default (BertAdam does this on purpose).",
        ),
        "first": Switch(
            "bias correction of m only", "wrong", "The first steps are 1/√(1-β2) times too long, 30 by default."
        ),
        "second": Switch(
            "bias correction of v only", "wrong", "The first steps are 1-β1 times as long, a tenth by default."
        ),
        "swapped": Switch("β1 and β2 exchanged", "wrong", "m has the long memory and v the short one."),
    }
)


def update(
    param: Tensor,
    grad: Tensor,
    state: State,
    settings: Settings,
    *,
    decay: str,
    epsilon: str,
    correction: str,
) -> tuple[Tensor, dict[str, Any]]:
    """Adam with the three switches set; amsgrad is not among them."""
    inside = {"coupled": 1.0, "growing inside": -1.0}.get(decay, 0.0)
    direction = uphill(grad, settings) + inside * number(settings, "weight_decay") * param
    step, new = _moments(param, direction, state, settings, epsilon, correction)
    moved = param - number(settings, "lr") * step
    return moved - _decayed(param, moved, settings, decay), new


def _moments(
    param: Tensor, direction: Tensor, state: State, settings: Settings, epsilon: str, correction: str
) -> tuple[Tensor, dict[str, Any]]:
    beta1, beta2 = pair(settings) if correction != "swapped" else pair(settings)[::-1]
    t, eps = count(state), number(settings, "eps")
    first = beta1 * zeros(state, "exp_avg", param) + (1 - beta1) * direction
    second = beta2 * zeros(state, "exp_avg_sq", param) + (1 - beta2) * direction**2
    new = {"step": t, "exp_avg": first, "exp_avg_sq": second}
    bias1 = 1 - beta1**t if correction in ("both", "first", "swapped") else 1.0
    bias2 = 1 - beta2**t if correction in ("both", "second", "swapped") else 1.0
    if epsilon == "inside":
        return first / bias1 / (second / bias2 + eps).sqrt(), new
    return first / bias1 / ((second / bias2).sqrt() + (eps if epsilon == "outside" else eps / bias2**0.5)), new


def _decayed(param: Tensor, moved: Tensor, settings: Settings, decay: str) -> Tensor | float:
    rate, strength = number(settings, "lr"), number(settings, "weight_decay")
    decayed: dict[str, Tensor | float] = {
        "decoupled": rate * strength * param,
        "after": rate * strength * moved,
        "unscaled": strength * param,
        "growing": -rate * strength * param,
        "constant": rate * strength,
    }
    return decayed.get(decay, 0.0)


def _named(decay: str, epsilon: str, correction: str) -> UpdateRule:
    switches = (DECAYS[decay], EPSILONS[epsilon], CORRECTIONS[correction])
    standings = {switch.standing for switch in switches}
    family = "Adam" if decay in ("coupled", "growing inside") else "AdamW"
    return UpdateRule(
        name=f"{family} ({', '.join(switch.words for switch in switches if switch.words)})",
        update=partial(update, decay=decay, epsilon=epsilon, correction=correction),
        needs=NEEDS,
        standing="wrong" if "wrong" in standings else "disputed",
        family=family,
        remark=" ".join(switch.remark for switch in switches if switch.remark),
    )


STANDARD = (("coupled", "outside", "both"), ("decoupled", "outside", "both"))
ADAM_READINGS = tuple(
    _named(*switches) for switches in product(DECAYS, EPSILONS, CORRECTIONS) if switches not in STANDARD
)
