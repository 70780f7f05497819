"""Which formula belongs to which optimizer: torch's classes by identity, a user's class by what its name claims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch

from chainrule.update_rules.adafactor import ADAFACTOR
from chainrule.update_rules.adagrad import ADAGRAD
from chainrule.update_rules.adam import ADAM
from chainrule.update_rules.adam_readings import ADAM_READINGS
from chainrule.update_rules.adamw import ADAMW
from chainrule.update_rules.lion import LION
from chainrule.update_rules.muon import MUON
from chainrule.update_rules.other_readings import OTHER_READINGS, decoupled, reading, slips
from chainrule.update_rules.rmsprop import RMSPROP
from chainrule.update_rules.rule import Settings, UpdateRule, suffices
from chainrule.update_rules.sgd import SGD

RULES = (SGD, RMSPROP, ADAGRAD, ADAM, ADAMW, ADAFACTOR, LION, MUON)
OF_TORCH: Mapping[type, UpdateRule] = MappingProxyType(
    {
        torch.optim.SGD: SGD,
        torch.optim.RMSprop: RMSPROP,
        torch.optim.Adagrad: ADAGRAD,
        torch.optim.Adam: ADAM,
        torch.optim.AdamW: ADAMW,
        torch.optim.Adafactor: ADAFACTOR,
        torch.optim.Muon: MUON,
    }
)
READINGS = (
    *ADAM_READINGS,
    *OTHER_READINGS,
    *(
        reading(
            rule.name,
            f"{rule.name} with decoupled decay",
            partial(decoupled, rule=rule.update),
            "The decay does not pass through the momentum: λ must be chosen anew.",
            needs=rule.needs,
        )
        for rule in (SGD, RMSPROP, ADAGRAD)
    ),
    *(slip for rule in RULES for slip in slips(rule)),
)
_ORNAMENT = re.compile(
    r"^(my|custom|own|simple|naive|manual|plain|torch|vanilla|hand(written|made)?)|(optimi[sz]er|opt|impl|v?\d)$"
)


def rule_of_torch(kind: type, settings: Settings) -> UpdateRule | None:
    """The formula of one of torch's own optimizer classes; None for any other class and for those we have no formula of."""
    rule = OF_TORCH.get(kind)
    return ADAMW if rule is ADAM and settings.get("decoupled_weight_decay") else rule


def claimed_by(name: str) -> UpdateRule | None:
    """The formula that a class's name promises: `MyAdamW` promises AdamW; `AdamW8bit` is something else, and promises nothing."""
    bare = name.replace("_", "").lower()
    while (stripped := _ORNAMENT.sub("", bare)) != bare:
        bare = stripped
    return next((rule for rule in RULES if rule.name.lower() == bare), None)


def possible(settings: Settings) -> list[UpdateRule]:
    """All formulas and readings that these settings suffice for; the standard ones first."""
    fitting = [rule for rule in (*RULES, *READINGS) if suffices(rule, settings)]
    return sorted(fitting, key=lambda rule: ("standard", "disputed", "wrong").index(rule.standing))
