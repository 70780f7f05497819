"""Training a Transformer on a CPU: chainrule's loop beside plain eager PyTorch and `transformers.Trainer`, tokens per second.

    python benchmarks/transformer_speed.py [--threads N] [--rounds N] [--output results/transformer_speed.json]

6 layers, 384 wide, 6 heads, context 256, batch 12, 65 tokens, AdamW, gradient clipped at 1. Needs the [frameworks] extra. They
take turns in one process, so that a drift of the machine's speed hits all; medians are kept. The plain loop is what nanoGPT does
on a CPU: float32 (it has autocast on GPUs only), fused attention, AdamW not fused. `outside the model` is the share of
chainrule's loop that is not forward, backward, clipping and update: loading, logging, watching.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from chainrule.data.windows import Windows
from chainrule.models.transformer import next_token_loss
from chainrule.train.build import build_job
from chainrule.train.checkpoint import State
from chainrule.train.config import DataConfig, LoopConfig, ModelConfig, TrainConfig
from chainrule.train.engine import autograd
from chainrule.train.events import Events
from chainrule.train.health import Health
from chainrule.train.interrupt import Stop
from chainrule.train.loop import Job, micro_batches, train_loop, train_step
from chainrule.train.memory import kept_for_backward
from chainrule.train.records import Silent
from chainrule.train.task import Baseline, Conclusion, Task
from chainrule.train.tasks.text import count_targets
from chainrule.train.tasks.text_model import build_model

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, VOCABULARY = 6, 6, 384, 256, 12, 65
TOKENS = BATCH * CONTEXT
Step = Callable[[], float]  # makes some updates; returns seconds per update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="updates of each contestant in a round")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "transformer_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        ways = contestants(Path(folder), options.steps)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()
        for _ in range(options.rounds):
            for name, way in ways.items():
                seconds[name].append(way())
        outside = outside_the_model(Path(folder))
    result = summary(seconds, outside, megabytes_kept(), options)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def summary(
    seconds: dict[str, list[float]], outside: float, kept: dict[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    speed = {name: round(TOKENS / statistics.median(times)) for name, times in seconds.items()}
    ours = {name: speed[f"chainrule {name}"] for name in ("float32", "bfloat16")}
    return {
        "command": " ".join(["python", "benchmarks/transformer_speed.py", *sys.argv[1:]]),
        "shape": {"layers": LAYERS, "hidden": WIDTH, "heads": HEADS, "context": CONTEXT, "batch": BATCH},
        "threads": options.threads,
        "torch": str(torch.__version__),
        "processor has AMX": torch.cpu._is_amx_tile_supported(),
        "tokens per second": speed,
        "bfloat16 against nanoGPT's path": round(ours["bfloat16"] / speed["plain float32, as nanoGPT"], 3),
        "bfloat16 against Trainer bf16": round(ours["bfloat16"] / speed["Trainer bf16"], 3),
        "float32 against plain": round(ours["float32"] / speed["plain float32, as nanoGPT"], 3),
        "outside the model": round(outside, 4),
        "megabytes kept for backward": kept,
    }


def contestants(folder: Path, steps: int) -> dict[str, Step]:
    return {
        "chainrule bfloat16": chainrule(folder, "bfloat16", steps),
        "chainrule float32": chainrule(folder, "float32", steps),
        "plain float32, as nanoGPT": plain(steps),
        "Trainer bf16": trainer(folder, steps),
    }


def tokens(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, count).astype(np.int32)


# --- chainrule --------------------------------------------------------------------------------------------------------


def job_of(folder: Path, precision: str, **loop: Any) -> Job:
    config = TrainConfig(
        precision=precision,
        steps=100_000,
        model=ModelConfig(layers=LAYERS, heads=HEADS, hidden=WIDTH, context=CONTEXT),
        data=DataConfig(batch_size=BATCH, micro_batch_size=BATCH),
        loop=LoopConfig(preflight=False, compile="off", evaluate_every=0, checkpoint_every=0, **loop),
    )
    windows = Windows(tokens(200_000), CONTEXT)
    task = Task(
        model=build_model(config.model, VOCABULARY, config.seed),
        loss=next_token_loss,
        count=count_targets,
        training=windows,
        validation=windows,
        baseline=Baseline("nothing", 0.0, str),
        batch_size=BATCH,
        micro_batch_size=BATCH,
        measured=1,
        example="window",
        term="token",
        loss_unit="nats per token",
        description="Transformer",
        conclude=lambda *_: Conclusion(),
    )
    return build_job(config, folder, task, autograd, Silent())[0]


def chainrule(folder: Path, precision: str, steps: int) -> Step:
    job, state = job_of(folder, precision), State()
    job.model.train()

    def step() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            train_step(job, state)
        return (time.perf_counter() - start) / steps

    return step


def outside_the_model(folder: Path, steps: int = 12) -> float:
    """The share of the whole loop, events and watching included, that is not spent in the engine and the optimizer."""
    inside = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                inside += time.perf_counter() - start

        return run

    job = job_of(folder, "bfloat16")
    job = replace(job, engine=timed(job.engine), config=replace(job.config, steps=steps))
    for optimizer in job.optimizers:
        optimizer.step = timed(optimizer.step)  # type: ignore[method-assign]
    events = Events(folder)
    start = time.perf_counter()
    train_loop(job, State(), events, Silent(), [Health(print)], Stop(requested=False))
    whole = time.perf_counter() - start
    events.close()
    return 1 - inside / whole


# --- the others -------------------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """Pre-norm block, one map for queries, keys and values, torch's fused causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.expand, self.contract = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class PlainGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(torch.arange(x.shape[1])))))


def plain(steps: int) -> Step:
    model, row = PlainGPT(), torch.from_numpy(tokens(200_000).astype(np.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def update() -> None:
        starts = torch.randint(len(row) - CONTEXT - 1, (BATCH,))
        x = torch.stack([row[i : i + CONTEXT] for i in starts])
        y = torch.stack([row[i + 1 : i + 1 + CONTEXT] for i in starts])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def step() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            update()
        return (time.perf_counter() - start) / steps

    return step


def megabytes_kept() -> dict[str, float]:
    """What autograd keeps of one forward pass, weights left out."""
    plain_model, row = PlainGPT(), torch.from_numpy(tokens(BATCH * CONTEXT).astype(np.int64)).view(BATCH, CONTEXT)
    kept = {
        "plain float32, as nanoGPT": kept_for_backward(
            plain_model, lambda: F.cross_entropy(plain_model(row).flatten(0, 1), row.flatten())
        )
    }
    for precision in ("float32", "bfloat16"):
        job = job_of(Path(), precision)
        batch = next(micro_batches(job, State()))
        kept[f"chainrule {precision}"] = kept_for_backward(job.model, lambda job=job, b=batch: job.loss(job.model, b))
    return {name: round(size / 1e6, 1) for name, size in kept.items()}


class Clock(TrainerCallback):
    """When each update ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def trainer(folder: Path, steps: int) -> Step:
    config = GPT2Config(
        n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, n_positions=CONTEXT, vocab_size=VOCABULARY,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows = torch.from_numpy(tokens(400 * CONTEXT).astype(np.int64)).view(-1, CONTEXT)
    data = [{"input_ids": row, "labels": row} for row in rows]
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=steps + 1, per_device_train_batch_size=BATCH, bf16=True, use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip

    def step() -> float:
        clock = Clock()
        Trainer(model, settings, train_dataset=data, callbacks=[clock]).train()
        return (clock.times[-1] - clock.times[0]) / steps

    return step


if __name__ == "__main__":
    main()
