"""What is said of a model trained on a table: the scores that people expect, beside those of the baseline.

N rows, O outputs, K classes
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from chainrule.data.tables.answers import answers, baseline_scores, scores_of
from chainrule.data.tables.classification_scores import confusion
from chainrule.data.tables.column import Floats, shortened
from chainrule.data.tables.target import Target
from chainrule.train.task import Conclusion
from chainrule.train.tasks.table_data import Rows, Side, TableData

AT_ONCE = 8192
WIDTH = 12
MOST_CLASSES = 12  # of a confusion matrix that fits a terminal

Scores = Mapping[str, float]


def concluding(data: TableData, dtype: torch.dtype) -> Callable[[nn.Module, float], Conclusion]:
    """conclude(model, loss): scores on the validation rows, and on the test rows if there are some."""
    target, training_N = data.preprocessing.target, data.sides["training"].y_N
    held = [name for name in ("validation", "test") if name in data.sides]

    def conclude(model: nn.Module, loss: float) -> Conclusion:  # noqa: ARG001
        found = {name: predict(model, Rows(data.sides[name], target, dtype)) for name in held}
        scores: dict[str, Scores] = {
            name: scores_of(data.sides[name].y_N, answer, target) for name, answer in found.items()
        }
        last = held[-1]
        scores["baseline"] = baseline_scores(data.sides[last].y_N, training_N, target)
        lines = [*table_of(scores, target, last), *confusion_lines(data.sides[last], found[last], target)]
        metrics = {f"{side} {name}": value for side, one in scores.items() for name, value in one.items()}
        return Conclusion({name: value for name, value in metrics.items() if math.isfinite(value)}, tuple(lines))

    return conclude


@torch.no_grad()
def predict(model: nn.Module, rows: Rows) -> Floats:
    """Answers for all rows: (N,) numbers or (N, K) probabilities. Leaves the model's mode as it was."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        parts = [
            model(rows.batch(np.arange(start, min(start + AT_ONCE, len(rows))), device)["inputs"]).double().cpu()
            for start in range(0, len(rows), AT_ONCE)
        ]
    finally:
        model.train(was_training)
    return answers(torch.cat(parts).numpy(), rows.target)


def table_of(scores: Mapping[str, Scores], target: Target, last: str) -> list[tuple[str, str]]:
    """The scores as (label, text): a column for each side, and for the baseline on the last of them."""
    always = "mean" if target.goal == "regression" else "majority"
    heads = [*(name for name in scores if name != "baseline"), f"always the {always}, {last}"]
    lines = [("scores", "".join(f"{head:<{WIDTH}}" for head in heads))]
    for name in scores[last]:
        lines.append((f"  {name}", "".join(f"{scores[side][name]:<{WIDTH}.4g}" for side in scores).rstrip()))
    return lines


def confusion_lines(side: Side, answer: Floats, target: Target) -> list[tuple[str, str]]:
    """The confusion matrix as (label, text), for classes that fit."""
    if target.goal == "regression" or len(target.classes) > MOST_CLASSES:
        return []
    counts_KK = confusion(side.y_N.astype(np.int64), answer.argmax(axis=1), len(target.classes))
    names = [shortened(name, 7) for name in target.classes]
    width = max(6, *(len(name) + 1 for name in names))
    lines = [("true", "predicted " + "".join(f"{name:>{width}}" for name in names))]
    for name, row_K in zip(names, counts_KK.tolist(), strict=True):
        lines.append((f"  {name}", " " * len("predicted ") + "".join(f"{count:>{width}}" for count in row_K)))
    return lines
