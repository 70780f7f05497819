"""A loss as it is written in a file or on the command line: `huber`, or with settings `huber(delta=0.7)`."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

from chainrule.errors import ConfigError, did_you_mean
from chainrule.losses.catalogue import loss_named
from chainrule.losses.entry import Loss

# setting -> (lowest, highest); the limits themselves belong to it if the third says so
LIMITS: Mapping[str, tuple[float, float, bool]] = MappingProxyType(
    {
        "alpha": (0.0, 1.0, True),
        "delta": (0.0, math.inf, False),
        "gamma": (0.0, math.inf, True),
        "level": (0.0, 1.0, False),
        "margin": (0.0, math.inf, True),
        "positive_weight": (0.0, math.inf, False),
        "smoothing": (0.0, 1.0, True),
        "temperature": (0.0, math.inf, False),
    }
)
_CALL = re.compile(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*")


def loss_called(text: str) -> tuple[Loss, dict[str, float]]:
    """The loss and its settings. Raises ConfigError for an unknown name or setting, or a number out of range."""
    found = _CALL.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} names no loss; expected NAME or NAME(setting=number), such as huber(delta=0.7)")
    loss = loss_named(found[1])
    parts = [part for part in (found[2] or "").split(",") if part.strip()]
    return loss, dict(_setting(part, text, loss) for part in parts)


def written(loss: Loss, settings: Mapping[str, float]) -> str:
    """The text that `loss_called` reads: "huber(delta=0.7)"."""
    inside = ", ".join(f"{name}={value:g}" for name, value in settings.items())
    return f"{loss.name}({inside})" if inside else loss.name


def numbers_of(loss: Loss) -> list[str]:
    """The settings of a loss that are numbers."""
    return [name for name in inspect.signature(loss.function).parameters if name in LIMITS]


def _setting(part: str, text: str, loss: Loss) -> tuple[str, float]:
    name, equals, number = (piece.strip() for piece in part.partition("="))
    known = numbers_of(loss)
    if name not in known:
        hint = did_you_mean(name, known, f"it has {', '.join(known) or 'none'}")
        raise ConfigError(f"{text!r}: {loss.name} has no setting {name!r}; {hint}")
    low, high, closed = LIMITS[name]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    inside = low <= value <= high if closed else low < value < high
    if not equals or not inside or math.isinf(value):
        reach = f"from {low:g} to {high:g}" if closed else f"above {low:g} and below {high:g}"
        raise ConfigError(f"{text!r}: {name} is {number or 'not given'}; a number {reach} is needed")
    return name, value
