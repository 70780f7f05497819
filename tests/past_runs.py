"""Run folders as training leaves them, made without training: for the tests of `runs` and `compare`."""

import json
from dataclasses import replace

from chainrule.train.atomic import write_text
from chainrule.train.config import OptimizerConfig, TrainConfig
from chainrule.train.events import Events
from chainrule.train.records import Evaluation, StepRecord
from chainrule.train.settings import to_toml


def made_run(root, name, *, steps=40, rate=1e-3, ending="finished", report=None, **changes):
    """A run whose loss falls as 5/step, measured every 10 steps, half a second a step."""
    config = replace(TrainConfig(name=name, steps=40, optimizer=OptimizerConfig(learning_rate=rate)), **changes)
    folder = root / name
    folder.mkdir(parents=True)
    write_text(folder / "config.toml", to_toml(config))
    events = Events(folder)
    events.note("started")
    for step in range(1, steps + 1):
        events.step(StepRecord(step, 5 / step, rate, 1.0, 100, 0.5))
        if step % 10 == 0:
            events.evaluation(Evaluation(step, 6 / step, 8))
    if ending:
        events.note(ending, f"step {steps}")
    events.close()
    if report is not None:
        write_text(folder / "report.json", json.dumps({"parameters": 1234, "loss_unit": "nats per token", **report}))
    return folder
