"""Scores on scikit-learn's shipped tables, beside scikit-learn's own models on the same rows.

    python benchmarks/table_scores.py [--seeds N] [--output results/table_scores.json]

Each data set is written as CSV and trained by `chainrule train --task table` with its default network (64 - 64, ReLU,
dropout 0.3, AdamW at 0.003), 600 updates of 32 rows. Linear model and MLP of scikit-learn (64 - 64, its other settings by
default) are fitted on the run's own training rows, after the run's own preprocessing. All are scored on the test rows,
which none has seen: R2, or accuracy. A seed chooses the split, the weights and the order of the rows; shown are mean and
range over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from chainrule.train.config import LoopConfig, ScheduleConfig, TableConfig, TrainConfig
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from chainrule.train.tasks.table_data import load
from small_tables import SHIPPED, write_shipped

STEPS = 600
WIDTHS = (64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "table_scores.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    with tempfile.TemporaryDirectory() as folder:
        tables = [measure(name, options.seeds, Path(folder)) for name in SHIPPED]
    result = {
        "command": " ".join(["python", "benchmarks/table_scores.py", *sys.argv[1:]]),
        "steps": STEPS,
        "batch": TableConfig().batch_size,
        "widths": WIDTHS,
        "dtype": "float32",
        "threads": 1,
        "torch": str(torch.__version__),
        "scikit-learn": sklearn.__version__,
        "tables": tables,
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def measure(name: str, seeds: int, folder: Path) -> dict[str, object]:
    """Test scores of the data set's models, seed by seed."""
    file = write_shipped(name, folder)
    runs = [scores(name, file, seed, folder) for seed in range(seeds)]
    return {"table": name, "score": "R2" if name == "diabetes" else "accuracy", **summary(runs)}


def scores(name: str, file: Path, seed: int, folder: Path) -> dict[str, float]:
    config = TrainConfig(
        task="table",
        name=f"{name}-{seed}",
        runs_folder=str(folder / "runs"),
        seed=seed,
        steps=STEPS,
        table=TableConfig(file=str(file), target="target"),
        schedule=ScheduleConfig(warmup_steps=20),
        loop=LoopConfig(evaluate_every=0, checkpoint_every=0, preflight=False),
    )
    results = run_training(new_run(config))
    sides = load(Path(results.folder), config).sides
    score = "R2" if name == "diabetes" else "accuracy"
    found = {"chainrule": results.metrics[f"test {score}"], "baseline": results.metrics[f"baseline {score}"]}
    for label, model in theirs(name, seed).items():
        model.fit(sides["training"].x_NF, sides["training"].y_N)
        found[label] = model.score(sides["test"].x_NF, sides["test"].y_N)
    print(name, seed, {label: round(value, 3) for label, value in found.items()}, flush=True)
    return found


def theirs(name: str, seed: int) -> dict[str, object]:
    if name == "diabetes":
        return {"linear": LinearRegression(), "mlp": MLPRegressor(hidden_layer_sizes=WIDTHS, random_state=seed)}
    return {
        "linear": LogisticRegression(max_iter=2000),
        "mlp": MLPClassifier(hidden_layer_sizes=WIDTHS, random_state=seed),
    }


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, lowest and highest of each model."""
    return {
        label: {
            "mean": round(statistics.fmean(values), 4),
            "lowest": round(min(values), 4),
            "highest": round(max(values), 4),
        }
        for label in runs[0]
        if (values := [float(run[label]) for run in runs])
    }


if __name__ == "__main__":
    main()
