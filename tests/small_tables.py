"""Tables for the tests: scikit-learn's shipped data sets as CSV files, and a small table with every kind of column."""

import csv
import random
from dataclasses import replace

from chainrule.train.config import (
    LoopConfig,
    MLPConfig,
    OptimizerConfig,
    ScheduleConfig,
    TableConfig,
    TrainConfig,
)

SHIPPED = ("diabetes", "breast_cancer", "wine", "digits")


def write_csv(path, names, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def write_shipped(name, folder):
    """One of scikit-learn's data sets, classes by their names, the column to predict called target."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    classes = data.target_names if name in ("breast_cancer", "wine") else None
    targets = [str(classes[place]) for place in data.target] if classes is not None else data.target.tolist()
    rows = ([*row, target] for row, target in zip(data.data.tolist(), targets, strict=True))
    return write_csv(folder / f"{name}.csv", [*data.feature_names, "target"], rows)


def write_mixed(path, rows=200, seed=0):
    """Numbers with gaps, a category with gaps and rare words, a boolean, a date, an identifier; the target follows them."""
    draw = random.Random(seed)
    written = []
    for number in range(rows):
        size, colour, paid = draw.gauss(0, 1), draw.choice(["red", "red", "blue", "green"]), draw.random() < 0.5
        day = draw.randrange(1, 29)
        target = 3 * size + 2 * (colour == "red") - paid + 0.1 * day + draw.gauss(0, 0.1)
        gap, word = draw.random() < 0.1, draw.random()
        shown = "" if word < 0.05 else f"rare {number}" if word < 0.07 else colour
        words = ["yes" if paid else "no", f"2024-03-{day:02d}"]
        written.append(["" if gap else size, shown, *words, number, target, "high" if target > 2 else "low"])
    return write_csv(path, ["size", "colour", "paid", "day", "id", "target", "class"], written)


def table_config(folder, file, **changes):
    """A quick run on a CSV file with a column `target`; fields of a section may be changed: mlp={"hidden": (8,)}."""
    config = TrainConfig(
        task="table",
        name="table",
        runs_folder=str(folder / "runs"),
        steps=60,
        precision="float32",
        device="cpu",
        table=TableConfig(file=str(file), target="target"),
        mlp=MLPConfig(hidden=(16,), dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=5),
        loop=LoopConfig(evaluate_every=20, checkpoint_every=20, preflight=False),
    )
    sections = {name: value for name, value in changes.items() if isinstance(value, dict)}
    plain = {name: value for name, value in changes.items() if name not in sections}
    return replace(config, **plain, **{name: replace(getattr(config, name), **to) for name, to in sections.items()})
