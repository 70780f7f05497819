"""How diabetes goes on after a year, from ten measurements: an MLP on a table, beside always the mean.

The data set is scikit-learn's; 442 patients, written as CSV as anybody's table would be. A seventh of the patients is
never seen in training: the scores are theirs. From the terminal the same is
`chainrule train --task table --table.file diabetes.csv --table.target target`, and then
`chainrule predict runs/table-001 new.csv`.

Expected output:
finished after 300 updates of 32 rows
  R2     0...   always the mean -0.0
  MAE   4...   always the mean 7...
a patient of the training rows    predicted ..., true 151
the same, blood pressure unknown  predicted ...
"""

import csv
import tempfile
from pathlib import Path

from sklearn.datasets import load_diabetes

import chainrule as cr
from chainrule.train.config import LoopConfig, ScheduleConfig, TableConfig, TrainConfig

DATA = load_diabetes(scaled=False)


def write(path: Path, names: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def main(folder: Path) -> None:
    rows = [[*patient, target] for patient, target in zip(DATA.data.tolist(), DATA.target.tolist(), strict=True)]
    file = write(folder / "diabetes.csv", [*DATA.feature_names, "target"], rows)
    results = cr.train(
        TrainConfig(
            task="table",
            runs_folder=str(folder / "runs"),
            steps=300,
            table=TableConfig(file=str(file), target="target"),
            schedule=ScheduleConfig(warmup_steps=20),
            loop=LoopConfig(preflight=False),
        )
    )
    scores = results.metrics
    print(f"{results.outcome} after {results.steps} updates of 32 rows")
    print(f"  R2    {scores['test R2']:4.1f}   always the mean {scores['baseline R2']:.1f}")
    print(f"  MAE   {scores['test MAE']:4.1f}   always the mean {scores['baseline MAE']:.1f}")

    first = DATA.data[0].tolist()
    new = write(folder / "new.csv", DATA.feature_names, [first, [*first[:3], "", *first[4:]]])
    known, unknown = cr.predict(results.folder, new).answers
    print(f"a patient of the training rows    predicted {known:.0f}, true {DATA.target[0]:.0f}")
    print(f"the same, blood pressure unknown  predicted {unknown:.0f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
