"""Checks of initial loss, ranges, symmetry, dead units, depth profile."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
JUDGES: tuple[Any, ...] = ()
