"""Checks of two ways of computing the same gradient that must agree."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
ON_REQUEST: tuple[Any, ...] = ()
