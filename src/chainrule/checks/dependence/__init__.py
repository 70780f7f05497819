"""Checks of what each output depends on, read from gradients."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
