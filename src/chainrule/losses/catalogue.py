"""All losses in one table, and the one that a name written by a user means."""

from __future__ import annotations

from chainrule.errors import ConfigError, did_you_mean
from chainrule.losses import classification, distributions, language, ranking, regression
from chainrule.losses.entry import Loss

CATALOGUE: tuple[Loss, ...] = (
    *regression.LOSSES,
    *classification.LOSSES,
    *ranking.LOSSES,
    *distributions.LOSSES,
    *language.LOSSES,
)


def loss_named(name: str) -> Loss:
    """The loss that a user's file or command line names. Raises ConfigError for any other name."""
    known = {loss.name: loss for loss in CATALOGUE}
    if name not in known:
        hint = did_you_mean(name, known, f"known are {', '.join(known)}")
        raise ConfigError(f"no loss is called {name!r}; {hint}")
    return known[name]
