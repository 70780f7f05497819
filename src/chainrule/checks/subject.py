"""What the checks look at: one set-up, one batch, its graph in the user's dtype and in true float64, evaluated once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, loss_of, resolve
from chainrule.autodiff.reverse import reverse
from chainrule.capture import Tape, promote, record
from chainrule.checks.passes import Pass, run_pass
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.errors import SetupError
from chainrule.finding import Finding, Line, StageResult, repeated
from chainrule.graph import Graph, Node, Ref, Source, Value, op_name
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
        return run_pass(self.setup.model, self.setup.loss, self.batch, seed=self.seed)

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


def check_finite(graph: Graph, loss: Tensor, values: Mapping[str, Value]) -> None:
    """Raise SetupError, naming where it begins, if the loss is inf or nan: no gradient of it has a meaning."""
    if torch.isfinite(loss):
        return
    for name, leaf in graph.leaves.items():
        if not _finite(values[name]):
            count = int((~torch.isfinite(leaf.value)).sum())
            raise SetupError(
                f"the loss is {float(loss)}: {leaf.kind} {leaf.path} {tuple(leaf.value.shape)} holds {count:,} inf or nan; "
                "no gradient has a meaning there. Clean the input, or look at how the parameter was initialised"
            )
    first = next(node for node in graph.nodes if not _finite(values[node.name]))
    first = _undefined_before(first, graph, values) or first
    raise SetupError(
        f"the loss is {float(loss)}: its input is finite, and inf or nan first appears in {first.where} "
        f"({first.source}: {first.source.code if first.source else ''}){_why_not_finite(first, values)}"
    )


def _undefined_before(node: Node, graph: Graph, values: Mapping[str, Value]) -> Node | None:
    """The formula behind `node` that was given a number outside its domain (log of 0 is -inf); None if there is none."""
    behind: set[str] = {node.name}
    for earlier in reversed(graph.nodes):
        if earlier.name in behind:
            behind |= {ref.name for ref in earlier.refs()}
            output = values[earlier.name]
            if _outside_domain(earlier, values) and isinstance(output, Tensor) and bool((output == -torch.inf).any()):
                return earlier
    return None


def _outside_domain(node: Node, values: Mapping[str, Value]) -> int:
    """How many entries the node's formula is not defined for."""
    rule = RULES.get(node.op)
    return 0 if rule is None or rule.domain is None else int((~call_by_name(rule.domain, resolve(node, values))).sum())


def _why_not_finite(node: Node, values: Mapping[str, Value]) -> str:
    """What is known of the formulas that most often give inf or nan, as the end of a sentence."""
    arguments = resolve(node, values)
    if "ignore_index" in arguments and bool((arguments["target"] == arguments["ignore_index"]).all()):
        return f": every label is {arguments['ignore_index']}, which the loss ignores; leave such batches out"
    if op_name(node.op) in ("softmax", "safe_softmax"):
        return ": a row of it is masked throughout; leave one entry of each row unmasked"
    if op_name(node.op) == "exp":
        return ": its input is too large; subtract the maximum first, or use logsumexp or softmax"
    if outside := _outside_domain(node, values):
        return f": {outside:,} of its inputs lie outside its domain; clamp them, or use log_softmax or logsigmoid"
    return ""


def _finite(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(_finite(item) for item in value)
    # -inf is what attention masks are made of; +inf and nan have no honest use in a forward pass
    return not (
        isinstance(value, Tensor) and value.is_floating_point() and bool((value.isnan() | (value == torch.inf)).any())
    )


def line_of(source: Source | None) -> Line | None:
    """A node's source as the report's plain line."""
    return None if source is None else Line(source.file, source.line, source.code)
