"""The command `train`: TOML file and flags to a TrainConfig, its outcome to the terminal and the exit code."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from chainrule.errors import ConfigError
from chainrule.setup_file import located
from chainrule.train.config import TrainConfig
from chainrule.train.interrupt import interrupt_afterwards
from chainrule.train.past import CONFIG, read_run
from chainrule.train.records import plural
from chainrule.train.settings import by_last_part, config_from, origins, read_settings, to_toml

EXIT_CODES = {"finished": 0, "stopped early": 0, "interrupted": 130, "refused by preflight": 1}


def train(
    settings: Path | None = None,
    /,
    *,
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  a frozen dataclass
    resume: Path | None = None,
    print_config: Annotated[bool, Parameter(negative="")] = False,
    plan: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a language model on text, a network on a table, or vectors of words: preflight, training, a report.

    Without arguments it learns from the sources of Python's standard library, in about three minutes on two cores.
    Ctrl-C ends the run after the step in progress and saves it.

    Parameters
    ----------
    settings
        RUN.toml, a file of the settings below; flags win over it.
    resume
        Go on with a run, exactly as if it had never stopped: its folder, or one of its checkpoints.
    print_config
        Print all settings as TOML and stop.
    plan
        Print parameters, memory and time that the run would take, and stop.
    """
    remarks = origins(config, read_settings(settings) if settings else {})
    if print_config:
        print(to_toml(replace(config, loss=located(config.loss, Path())), remarks), end="")
        return 0
    if plan:
        return plan_of(config)
    if resume and any(remarks.values()):
        given = ", ".join(name for name, origin in remarks.items() if origin)
        more = (remarks["steps"] or remarks["words.epochs"]) and (resume / CONFIG).is_file()
        hint = f". {longer(resume)}" if more else ""
        raise ConfigError(f"--resume takes every setting from {resume}; leave out {given}{hint}")
    if resume and (done := already_finished(resume)):
        print(done)
        return 0

    with interrupt_afterwards():  # numpy and torch do not survive Ctrl-C while they are imported
        from chainrule import api
        from chainrule.cli_progress import make_listener
        from chainrule.train.run_folder import new_run, open_run

    listener = make_listener()
    results = api.train(open_run(resume) if resume else new_run(config, remarks), listener=listener)
    listener.finished(results)
    return EXIT_CODES[results.outcome]


def already_finished(folder: Path) -> str:
    """What is said of a run that has made all its updates; "" of any other, and of a checkpoint, from which it may go on."""
    run = read_run(folder) if (folder / CONFIG).is_file() else None
    if run is None or run.status not in ("finished", "stopped early"):
        return ""
    return (
        f"{folder} is already {run.status} after {plural(run.done, 'step')}; its report is {folder / 'report.txt'}. A run keeps "
        f"the number of steps that it began with. {longer(folder)}"
    )


def longer(folder: Path) -> str:
    """How more updates are made than a run has: its learning rate falls to its last step, so that none is appended."""
    task = read_run(folder).task
    more = "--words.epochs" if task == "words" else "--steps"
    on = "; or export it and train on from its weights, --model.pretrained FOLDER" if task == "text" else ""
    return f"To train longer: chainrule train {folder / CONFIG} --name NEW {more} MORE{on}"


def plan(
    settings: Path | None = None,  # noqa: ARG001  read by settings_of_file
    /,
    *,
    config: Annotated[TrainConfig, Parameter(name="*")] = TrainConfig(),  # noqa: B008  a frozen dataclass
) -> int:
    """Say what a training run would take, without training: parameters, memory, time.

    It reads the data, makes the model and measures some updates; nothing is written. The flags are those of `train`.

    Parameters
    ----------
    settings
        RUN.toml, a file of the settings below; flags win over it.
    """
    return plan_of(config)


def plan_of(config: TrainConfig) -> int:
    """Print what a run of this configuration would take."""
    with interrupt_afterwards():
        from chainrule import api
        from chainrule.cli_progress import make_listener

    listener = make_listener()
    for label, text in api.plan(config, listener=listener).lines():
        listener.say(label, text)
    return 0


def moved(option: str) -> str:
    """The option of the same last part in another section: --optimizer.learning-rate of --learning-rate; "" if there is none."""
    end = option.removeprefix("--").rsplit(".", 1)[-1].replace("-", "_")
    setting = by_last_part().get(end, "")
    return setting and "--" + setting.replace("_", "-")


def unlike_all(option: str) -> bool:
    """True if no setting's last part is near to the option's: behind a common section, --loop.x and --loop.y seem alike."""
    section, _, end = option.removeprefix("--").replace("-", "_").rpartition(".")
    return bool(section) and not get_close_matches(end.removeprefix("no_"), by_last_part())


def settings_of_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the arguments of `train` and `plan` that no flag has set the values of RUN.toml: a cyclopts configuration source."""
    if commands not in (("train",), ("plan",)):
        return
    for argument in arguments:
        if argument.field_info.name == "settings" and argument.tokens:
            path = Path(argument.tokens[0].value)
            tables = read_settings(path)
            config_from(tables, where=str(path))  # refuses unknown keys and wrong types in the file's own words
            Dict(tables, use_commands_as_keys=False, source=str(path))(app, commands, arguments)
            return
