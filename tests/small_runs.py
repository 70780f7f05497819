"""A tiny text and a tiny run, for the tests of training."""

import random
from dataclasses import replace

from chainrule.train.config import (
    DataConfig,
    LoopConfig,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
    ScheduleConfig,
    TrainConfig,
)

WORDS = tuple("the cat sat on a mat and the dog ran to a hill while rain fell on all of them".split())  # noqa: SIM905


def write_text(folder, files=12, lines=40):
    """Files of random sentences in which a word depends on the one before; the same on every machine."""
    draw = random.Random(5)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        at, words = 0, []
        for _ in range(lines * 8):
            at = (at + draw.choice((1, 2, 5))) % len(WORDS)
            words.append(WORDS[at])
        rows = (" ".join(words[8 * line : 8 * line + 8]) for line in range(lines))
        (folder / f"{number}.txt").write_text("\n".join(rows) + "\n")
    return folder


def tiny_config(folder, **changes):
    """20 steps of a model of 4,000 parameters on the tiny text below `folder`."""
    config = TrainConfig(
        text=(str(write_text(folder / "text")),),
        name="tiny",
        runs_folder=str(folder / "runs"),
        steps=20,
        precision="float32",
        device="cpu",
        model=ModelConfig(layers=2, heads=2, hidden=8, context=8, dropout=0.1),
        data=DataConfig(vocabulary=280, batch_size=4, micro_batch_size=4),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=3),
        loop=LoopConfig(evaluate_every=5, evaluate_windows=8, checkpoint_every=7, preflight=False),
        sample=SampleConfig(tokens=8),
    )
    return replace(config, **changes)
