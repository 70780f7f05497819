"""What the text of one cell means: missing, a number, true or false, a date, or else a word."""

from __future__ import annotations

import math
from datetime import UTC, datetime

MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "?", "-", "."})
TRUTH = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_OF_A_DAY = 86_400


def is_missing(text: str) -> bool:
    """True for an empty cell and for the words that files write into one: NA, null, ?, ..."""
    return text.strip().lower() in MISSING


def number(text: str, decimal: str = ".") -> float | None:
    """The value of a number, +-inf among them; None for anything else. 1_000 is a word; 1,5 too, unless decimal is ","."""
    if decimal == "," and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def truth(text: str) -> float | None:
    """1 for true, t, yes, y; 0 for their opposites; None for anything else."""
    return TRUTH.get(text.strip().lower())


def days(text: str) -> float | None:
    """Days since 1970-01-01 of an ISO 8601 date or date and time, UTC where it names no zone; None for anything else."""
    text = text.strip()
    if not text[:1].isdigit() or "-" not in text:  # 20240131 is a number
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - EPOCH).total_seconds() / SECONDS_OF_A_DAY


def finite(value: float | None) -> float:
    """nan for what is no number, and for inf."""
    return value if value is not None and math.isfinite(value) else math.nan
