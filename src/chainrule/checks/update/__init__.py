"""Checks of the optimizer's step against its own formula."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
JUDGES: tuple[Any, ...] = ()
