"""What a run on a table is: the file, its target, how rows are divided and columns become inputs; and the MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chainrule.train.config_rules import require, require_least

Goal = Literal["auto", "regression", "binary", "multi-class"]
By = Literal["content", "index", "last"]
Header = Literal["auto", "yes", "no"]
ClassWeights = Literal["none", "balanced"]
Activation = Literal["sigmoid", "tanh", "relu", "gelu", "gelu_tanh", "silu"]
Norm = Literal["none", "batch", "layer", "rms"]
Initialisation = Literal["xavier", "he", "orthogonal"]


@dataclass(frozen=True)
class TableConfig:
    """A table, and what is to be predicted."""

    file: str = ""
    """CSV or Parquet file."""
    target: str = ""
    """Column that is to be predicted."""
    goal: Goal = "auto"
    """What it is: a number, one of two classes, one of several; auto = found out from its values."""
    class_weights: ClassWeights = "none"
    """balanced = the terms of a class are weighted so that all classes count the same."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    keep: tuple[str, ...] = ()
    """Columns to keep though they look like identifiers."""
    categories: tuple[str, ...] = ()
    """Columns of numbers that stand for categories, such as postal codes."""
    max_categories: int = 30
    """Words of one column that get an input of their own, the most frequent ones; the others share one."""
    min_rows: int = 3
    """Training rows that a word needs for an input of its own."""
    split: By = "content"
    """How rows are divided: by a hash of their content, of their number, or the last ones are held out."""
    validation_fraction: float = 0.15
    """Share of the rows that the validation loss is measured on."""
    test_fraction: float = 0.15
    """Share of the rows that are measured once, at the end; 0 = none."""
    batch_size: int = 32
    """Rows in one update (mini-batch only)."""
    encoding: str = "utf-8"
    """Of a CSV file."""
    delimiter: str = ""
    """Of a CSV file; empty = found out."""
    header: Header = "auto"
    """Whether the first row of a CSV file holds the names; auto = found out."""

    def __post_init__(self) -> None:
        require_least(self, "table", 1, "max_categories", "min_rows", "batch_size")
        require(
            0 < self.validation_fraction < 1,
            f"table.validation_fraction is {self.validation_fraction}; a share between 0 and 1 is needed",
        )
        require(self.test_fraction >= 0, f"table.test_fraction is {self.test_fraction}; 0 means no test rows")
        held = self.validation_fraction + self.test_fraction
        require(
            held < 1,
            f"table.validation_fraction and table.test_fraction together are {held:g}: none is left to train on",
        )
        require(len(self.delimiter) <= 1, f"table.delimiter is {self.delimiter!r}; one character is needed")


@dataclass(frozen=True)
class MLPConfig:
    """The network that a table is learned by."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, from the inputs on; none = a linear model."""
    activation: Activation = "relu"
    """What stands between two linear maps."""
    norm: Norm = "none"
    """What keeps the scale before each activation: over the batch, over the units, or by their root mean square."""
    dropout: float = 0.3
    """Probability that a hidden unit is dropped in training, 0 to 1; small tables are learned by heart without it."""
    initialisation: Initialisation = "he"
    """How the weights are drawn: xavier (Glorot and Bengio 2010), he (He et al. 2015), orthogonal (Saxe et al. 2014)."""

    def __post_init__(self) -> None:
        require(min(self.hidden, default=1) >= 1, f"mlp.hidden is {list(self.hidden)}; each layer needs 1 unit or more")
        require(0 <= self.dropout < 1, f"mlp.dropout is {self.dropout}; a probability from 0 up to below 1 is needed")
