"""Checks of the optimizer's step against its own formula."""

from __future__ import annotations

from typing import Any

from chainrule.checks.update import update_formula

CHECKS: tuple[Any, ...] = (update_formula,)
JUDGES: tuple[Any, ...] = ()
