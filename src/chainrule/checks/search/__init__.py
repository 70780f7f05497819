"""Checks of short trainings on a copy."""

from __future__ import annotations

from typing import Any

ON_REQUEST: tuple[Any, ...] = ()
