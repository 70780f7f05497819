"""Checks of hazards of floating-point numbers."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
JUDGES: tuple[Any, ...] = ()
