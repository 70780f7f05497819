"""The derivative rules of all unit formulas, a file per family, merged and read-only."""

from __future__ import annotations

from chainrule.derivatives import activation, arithmetic, choice, elementwise
from chainrule.derivatives.rule import merge

RULES, FLAT = merge([elementwise.rules, arithmetic.rules, choice.rules, activation.rules])
