"""A tiny text and a tiny run, for the tests of training."""

import random
from dataclasses import replace

from chainrule.models import next_token_loss
from chainrule.train.config import (
    DataConfig,
    LoopConfig,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
    ScheduleConfig,
    TrainConfig,
)
from chainrule.train.task import Baseline, Conclusion, Task

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


def window_task(model, windows, batch_size=2):
    """The task of predicting the next token of `windows`, with nothing said at the end."""
    return Task(
        model=model,
        loss=next_token_loss,
        count=lambda batch: batch["targets"].numel(),
        training=windows,
        validation=windows,
        baseline=Baseline("nothing", 0.0, lambda loss: f"{loss}"),
        batch_size=batch_size,
        micro_batch_size=16,
        measured=64,
        example="window",
        term="token",
        loss_unit="nats per token",
        description="a model",
        conclude=lambda model, loss: Conclusion(),
    )


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
        loop=LoopConfig(
            evaluate_every=5, evaluate_windows=8, checkpoint_every=7, preflight=False, compile="off", tensorboard="off"
        ),
        sample=SampleConfig(tokens=8),
    )
    return replace(config, **changes)
