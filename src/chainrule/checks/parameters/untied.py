"""untied: parameters that are claimed to be one tensor are two.

What it checks
    The groups of Setup.tied; the input and output embeddings of a transformers model whose configuration says
    tie_word_embeddings; an output layer that starts as an exact copy of the embedding.
Why it matters
    Two tensors drift apart from the first step on; what was meant as one matrix gets half of its gradient in each copy, and
    a checkpoint that ties them again on loading throws one of them away.
How it decides
    Tied means the same parameter object. A claim that does not hold is an error; a copy without a claim, a warning.
Broken
    self.head.weight.data = self.embedding.weight.data.clone()
Repaired
    self.head.weight = self.embedding.weight
Limits
    Without a claim only an nn.Embedding and an nn.Linear of equal, random values are taken for a tie that failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome, Severity

NAME = "untied"


def check(subject: Subject) -> Outcome:
    """One finding for each tie that is none."""
    model = subject.setup.module
    claims = [*_declared(subject, model), *_configured(model)]
    broken = [_finding(subject, first, second, why, "error") for first, second, why, tied in claims if not tied]
    if broken:
        return broken
    copies = [_finding(subject, a, b, "they start as exact copies", "warning") for a, b in _copies(model)]
    return copies if copies or claims else NotRun("nothing claims a tie, and no output layer is a copy of an embedding")


def _declared(subject: Subject, model: nn.Module) -> Iterator[tuple[str, str, str, bool]]:
    """(first, other, why, whether it is one tensor) of Setup.tied."""
    named = dict(model.named_parameters(remove_duplicate=False))
    for first, *others in subject.setup.tied:
        for other in others:
            missing = [path for path in (first, other) if path not in named]
            why = f"Setup.tied names {missing[0]}, which the model does not have" if missing else "Setup.tied says so"
            yield first, other, why, not missing and named[first] is named[other]


def _configured(model: nn.Module) -> Iterator[tuple[str, str, str, bool]]:
    """The same of a transformers model's configuration."""
    if getattr(getattr(model, "config", None), "tie_word_embeddings", False) is not True:
        return
    ends = [getattr(model, name, None) for name in ("get_input_embeddings", "get_output_embeddings")]
    layers = [end() for end in ends if callable(end)]
    weights = [getattr(layer, "weight", None) for layer in layers]
    if len(weights) == 2 and all(isinstance(weight, nn.Parameter) for weight in weights):
        paths = {id(p): path for path, p in model.named_parameters(remove_duplicate=False)}
        first, second = (paths.get(id(weight), "an embedding") for weight in weights)
        yield first, second, "config.tie_word_embeddings is True", weights[0] is weights[1]


def _copies(model: nn.Module) -> Iterator[tuple[str, str]]:
    tables = {p: m.weight for p, m in model.named_modules() if isinstance(m, nn.Embedding)}
    layers = {p: m.weight for p, m in model.named_modules() if isinstance(m, nn.Linear)}
    for table, first in tables.items():
        for layer, second in layers.items():
            alike = first is not second and first.shape == second.shape and first.requires_grad and second.requires_grad
            if alike and bool(first.std() > 0) and torch.equal(first, second):
                yield f"{table}.weight", f"{layer}.weight"


def _finding(subject: Subject, first: str, second: str, why: str, severity: Severity) -> Finding:
    return Finding(
        check=NAME,
        severity=severity,
        where=second,
        message=f"{first} and {second} are two tensors, and are taken for one",
        evidence={"parameters": [first, second], "claim": why},
        notes=(
            f"The reason to take them for one: {why}.",
            "Assign the parameter itself (head.weight = embedding.weight) after everything that replaces parameters: "
            "loading, conversion, materialising from the meta device.",
        ),
        reproduce=subject.reproduce(NAME),
    )
