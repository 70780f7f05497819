"""What was fitted on the training rows, as data: how columns become inputs, and outputs become answers.

    number    x -> (x, or the median where missing; - mean) / scale, and 1 where it was missing, if some were in training
    category  one input a word (1 where it is that word); one for all rare words; one for missing, if some were in training

A word that was not seen in training counts as a rare one; if there were none, all inputs of its column are 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from chainrule.data.tables.column import Kind
from chainrule.data.tables.target import Target


@dataclass(frozen=True)
class NumberFeature:
    """One standardised input, and one more if `indicator`."""

    name: str
    kind: Kind
    median: float
    mean: float
    scale: float
    indicator: bool

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs that it makes."""
        return [self.name, f"{self.name} is missing"] if self.indicator else [self.name]


@dataclass(frozen=True)
class CategoryFeature:
    """One input for each of `words`, one for `rare` words if there were some, one for `missing` ones if there were some."""

    name: str
    words: tuple[str, ...]
    rare: bool
    missing: bool

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs that it makes."""
        more = ["another word"] * self.rare + ["missing"] * self.missing
        return [f"{self.name} is {word!r}" for word in self.words] + [f"{self.name} is {word}" for word in more]

    @property
    def kind(self) -> Kind:
        """Always "category"."""
        return "category"


Feature = NumberFeature | CategoryFeature


@dataclass(frozen=True)
class Preprocessing:
    """All that must be known to turn new rows into inputs, and outputs into answers."""

    features: tuple[Feature, ...]
    target: Target

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs, in order."""
        return [name for feature in self.features for name in feature.inputs]

    @property
    def width(self) -> int:
        """F, how many inputs the model has."""
        return sum(len(feature.inputs) for feature in self.features)

    @property
    def kinds(self) -> dict[str, Kind]:
        """How the columns of another file are to be read; that of classes is left to be found out, as in training."""
        kinds: dict[str, Kind] = {feature.name: feature.kind for feature in self.features}
        return kinds | ({self.target.name: "number"} if self.target.goal == "regression" else {})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"features": [asdict(feature) for feature in self.features], "target": self.target.to_dict()}

    @staticmethod
    def from_dict(saved: dict[str, Any]) -> Preprocessing:
        """What `to_dict` wrote."""
        return Preprocessing(
            tuple(_feature(feature) for feature in saved["features"]), Target.from_dict(saved["target"])
        )


def _feature(saved: dict[str, Any]) -> Feature:
    if "words" in saved:
        return CategoryFeature(**{**saved, "words": tuple(saved["words"])})
    return NumberFeature(**saved)
