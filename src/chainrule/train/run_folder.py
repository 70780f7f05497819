"""The folder of a run: its name, its settings, and that one process at a time trains in it.

runs/transformer-001/  config.toml  tokenizer.json  data/  (runs/table-001/ ..., by the kind of task)
                       metrics.sqlite  checkpoints/  report.txt  report.json
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chainrule.errors import CheckpointError, ConfigError, DataError, SetupError, did_you_mean
from chainrule.train.atomic import write_text
from chainrule.train.checkpoint import newest_checkpoint, read_state
from chainrule.train.chosen_loss import settled_loss
from chainrule.train.config import TrainConfig
from chainrule.train.events import FILE, read_totals
from chainrule.train.past import CONFIG, LOCK
from chainrule.train.settings import config_from, leaves, load_config, to_toml
from chainrule.train.tasks.text_model import settled_model

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Run:
    """A run that is to be started (`folder` is None) or resumed.

    config      in force
    folder      of the run; made when the data turned out to be usable
    checkpoint  to go on from; None = from the beginning
    remarks     on values of the configuration, by "section.field": comments in config.toml
    """

    config: TrainConfig
    folder: Path | None = None
    checkpoint: Path | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)


def new_run(config: TrainConfig, remarks: Mapping[str, str] | None = None) -> Run:
    """A run with a fresh folder, its configuration settled. Raises ConfigError if its name is taken."""
    taken = Path(config.runs_folder, config.name)
    if config.name and taken.exists():
        raise ConfigError(f"{taken} exists: take another --name, or go on with it: chainrule train --resume {taken}")
    return Run(settled(config), remarks=remarks or {})


def settled(config: TrainConfig) -> TrainConfig:
    """With nothing left open that does not depend on data or machine. Raises ConfigError for what cannot be so."""
    return replace(config, model=settled_model(config.model), loss=settled_loss(config))


def open_run(path: Path) -> Run:
    """A run to go on with: `path` is a run folder (its newest checkpoint) or one of its checkpoints."""
    if path.parent.name == "checkpoints":
        folder, checkpoint = path.parent.parent, path
    else:
        folder = path
        checkpoint = None
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{path} is no run folder: it has no {CONFIG}; {_nearest_run(folder)}")
    config = load_config(folder / CONFIG)
    checkpoint = checkpoint or newest_checkpoint(folder)
    if checkpoint is not None:
        _require_same(folder / CONFIG, config, read_state(checkpoint)["config"])
    return Run(config, folder, checkpoint)


def _nearest_run(folder: Path) -> str:
    """The run beside a folder that is none whose name is nearest, or where runs are."""
    beside = [config.parent.name for config in sorted(folder.parent.glob(f"*/{CONFIG}"))]
    near = did_you_mean(folder.name, beside, "", show=lambda name: str(folder.parent / name))
    return near or f"runs are below {TrainConfig().runs_folder}/"


def as_tables(config: TrainConfig) -> dict[str, Any]:
    """The configuration as nested tables of JSON-able values: what `config_from` reads."""
    tables: dict[str, Any] = {}
    for name, value in leaves(config):
        section, _, key = name.rpartition(".")
        table = tables.setdefault(section, {}) if section else tables
        table[key] = list(value) if isinstance(value, tuple) else value
    return tables


def _require_same(path: Path, config: TrainConfig, saved: Mapping[str, Any]) -> None:
    before = dict(leaves(config_from(saved)))
    changed = [f"{name} is {value!r}, was {before[name]!r}" for name, value in leaves(config) if value != before[name]]
    if changed:
        raise ConfigError(
            f"{path} was changed after the checkpoint was made: {'; '.join(changed)}. A resumed run goes on exactly as "
            f"it began; undo the change, or start a new run: chainrule train {path}"
        )


def make_folder(run: Run, prefix: str) -> Path:
    """Make the run's folder, numbered behind `prefix` if it has no name."""
    config = run.config
    root = Path(config.runs_folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if config.name:
            (root / config.name).mkdir()
            return root / config.name
        return _next_number(root, prefix)
    except FileExistsError:
        raise ConfigError(f"{root / config.name} exists: take another --name") from None
    except OSError as error:
        raise ConfigError(f"no run folder can be made in {root}: {error.strerror}") from None


def _next_number(root: Path, prefix: str) -> Path:
    taken = [int(path.name[-3:]) for path in root.glob(f"{prefix}-[0-9][0-9][0-9]")]
    for number in range(max(taken, default=0) + 1, 1000):
        try:
            (folder := root / f"{prefix}-{number:03d}").mkdir()
        except FileExistsError:  # another process was faster
            continue
        return folder
    raise ConfigError(f"{root} holds 999 runs without a name: give this one a --name")


def write_config(folder: Path, config: TrainConfig, remarks: Mapping[str, str]) -> None:
    """Write the resolved configuration."""
    head = "# Every setting of this run. Run it again: chainrule train config.toml\n\n"
    write_text(folder / CONFIG, head + to_toml(config, remarks))


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Hold the run's lock, which the system frees when the process ends. Raises CheckpointError if another holds it."""
    with (folder / LOCK).open("w") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(f"another process trains in {folder}: wait for it, or stop it first") from None
        yield


@contextmanager
def removed_if_refused(run: Run, folder: Path) -> Iterator[None]:
    """Remove the folder of a new run if what it was given turns out to be misuse before the first update."""
    try:
        yield
    except (ConfigError, DataError, SetupError):
        if run.folder is None and not ((folder / FILE).is_file() and read_totals(folder)[0]):
            shutil.rmtree(folder, ignore_errors=True)  # a system that locks open files keeps it
        raise
