"""The command `predict`: a run that was trained on a table, and another file, to answers for each of its rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from chainrule.errors import ConfigError


def predict(run: Path, file: Path, /, *, output: Path | None = None) -> int:
    """Predict the rows of a CSV or Parquet file by a run of `train --task table`.

    Columns are found by name. If the file has the target's column, too, the scores are told. Remarks go to stderr.

    Parameters
    ----------
    run
        Folder of the run, or one of its checkpoints.
    file
        CSV or Parquet file with the columns that the run was trained on.
    output
        CSV file to write: the prediction of each row, for classes their probabilities; without it they go to stdout.
    """
    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"{output} cannot be written: {output.parent} is no folder")
    if output is not None and output.exists():
        raise ConfigError(f"{output} exists: take another --output, or remove it first")
    from chainrule import api
    from chainrule.train.atomic import write_text

    found = api.predict(run, file)
    if output is None:
        print(found.to_csv(), end="")
    else:
        write_text(output, found.to_csv())
    say(f"{len(found.answers):,} rows by {found.checkpoint}{f', written to {output}' if output else ''}")
    for remark in found.remarks:
        say(remark)
    if found.scores:
        say(f"scores on {found.scored:,} rows with {found.target.name!r}: " + words(found.scores))
    return 0


def words(scores: Mapping[str, float]) -> str:
    """R2 0.51, MAE 42.1."""
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def say(text: str) -> None:
    """One line on stderr, so that stdout holds nothing but answers."""
    print(text, file=sys.stderr)
