"""What the checks look at: one set-up, one batch, its graph in the user's dtype and in true float64, evaluated once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, loss_of
from chainrule.autodiff.reverse import reverse
from chainrule.capture import Tape, promote, record
from chainrule.checks.copies import Pass, run_pass
from chainrule.errors import SetupError
from chainrule.finding import Finding, Line, StageResult, repeated
from chainrule.graph import Graph, Ref, Source, Value
from chainrule.setups import Setup

T = TypeVar("T")
BATCHES = 4
# A stage or check: looks at the subject, says what it did and what it found.
Check = Callable[["Subject"], tuple[StageResult, list[Finding]]]


@dataclass(frozen=True, eq=False)
class Subject:
    """One set-up under examination; what is dear is computed once, when first asked for.

    command  the command line that repeats the check, for findings; "" if called from Python
    tape     the user's own run, if it was recorded already, as that of a script is
    """

    setup: Setup
    batch: Any
    graph: Graph
    seed: int = 0
    command: str = ""
    tape: Tape | None = None
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """compute(), or what it gave when it was first asked for under this name: for what several checks read."""
        if name not in self._kept:
            self._kept[name] = compute()
        result: T = self._kept[name]
        return result

    @cached_property
    def own(self) -> Pass:
        """Loss and gradients of one eager pass of the user's own code."""
        return run_pass(self.setup, self.batch, seed=self.seed)

    @property
    def fixed_shapes(self) -> bool:
        """True if the loss can only be computed for batches of the recorded shapes: that of a script is a recording."""
        return bool(getattr(self.setup.loss, "fixed_shapes", False))

    @property
    def recorded(self) -> Tape:
        """The user's own eager run with its backward, in their own dtype; recorded anew at each call but for a script."""
        return self.tape or record(self.setup.model, self.setup.loss, self.batch)

    @cached_property
    def batches(self) -> tuple[Any, ...]:
        """The first batches of the set-up, four at most: reading them may cost time, so all checks share them."""
        return tuple(itertools.islice(iter(self.setup.batches), BATCHES))

    @cached_property
    def exact(self) -> Graph:
        """The graph in true float64: casts inside the model included."""
        return promote(self.graph, torch.float64)

    @cached_property
    def values(self) -> dict[str, Value]:
        """All values of the float64 graph."""
        return evaluate(self.exact)

    @cached_property
    def adjoints(self) -> dict[Ref, Tensor]:
        """dL/dvalue of the float64 graph by our chain rule."""
        return reverse(self.exact, self.values)

    @cached_property
    def gradients(self) -> Mapping[str, Tensor]:
        """The parameters' gradients by our chain rule, float64."""
        return {
            path: self.adjoints.get(Ref(leaf.name), torch.zeros_like(self.values[leaf.name]))
            for path, leaf in self.exact.parameters.items()
        }

    def keep_gradients_only(self) -> None:
        """Let go of the adjoints of everything but leaves: gigabytes, in a large model, that no later stage reads."""
        leaves = {Ref(leaf.name) for leaf in self.exact.leaves.values()}
        self.__dict__["adjoints"] = {ref: adjoint for ref, adjoint in self.adjoints.items() if ref in leaves}

    @property
    def loss(self) -> float:
        """The loss in float64."""
        return float(loss_of(self.exact, self.values))

    def generator(self, purpose: int) -> torch.Generator:
        """A generator of its own for each purpose, so that `--only` draws what a full run draws."""
        return torch.Generator().manual_seed(1000 * self.seed + purpose)

    def reproduce(self, check: str) -> str:
        """The command that runs only this check again, with this seed."""
        return repeated(self.command, check, self.seed) if self.command else ""


def first_batch(setup: Setup) -> Any:
    """The first batch, as the user's loop would see it. Raises SetupError if there is none."""
    for batch in setup.batches:
        return batch
    raise SetupError("Setup.batches gives no batch at all; expected an iterable with at least one")


def line_of(source: Source | None) -> Line | None:
    """A node's source as the report's plain line."""
    return None if source is None else Line(source.file, source.line, source.code)
