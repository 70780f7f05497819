"""The gradient stages, cheap to dear; each proves what the next relies on (docs/gradients.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.checks.gradient import (
    directional_mismatch,
    engine_disagreement,
    forward_mismatch,
    gradient_mismatch,
    no_rule,
    rule_mismatch,
)
from chainrule.checks.subject import Check

# stage -> (name of the check, which `chainrule why` explains; what runs it)
STAGES: Mapping[str, tuple[str, Check]] = MappingProxyType(
    {
        "0 forward": (forward_mismatch.NAME, forward_mismatch.check),
        "0 rules": (no_rule.NAME, no_rule.check),
        "1 chain rule": (engine_disagreement.NAME, engine_disagreement.check),
        "1b your backward": (gradient_mismatch.NAME, gradient_mismatch.check_in_float64),
        "2 each formula": (rule_mismatch.NAME, rule_mismatch.check),
        "3 eager backward": (gradient_mismatch.NAME, gradient_mismatch.check_in_own_dtype),
        "4 directions": (directional_mismatch.NAME, directional_mismatch.check),
    }
)
