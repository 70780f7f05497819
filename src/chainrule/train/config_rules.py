"""What a setting must be, and the error that says what it is. Imports no torch."""

from __future__ import annotations

from chainrule.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_least(config: object, section: str, least: float, *names: str) -> None:
    """Raise ConfigError for the first of the settings `section.name` that is below `least`."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{section}.{name} is {value}; it must be {least} or more")
