"""What watching costs: the same training loop alone and under `chainrule.watch`, step by step in turn.

    python benchmarks/watch_overhead.py            # writes benchmarks/results/watch_overhead.json
    python benchmarks/watch_overhead.py --sizes "tiny MLP" --clock cpu      # one size again, in the time of the processor

On a machine that is busy with other things `--clock cpu` is the fairer one.

Time: watched and unwatched stretches of one process take turns; the ratio is that of the medians of steps that are not looked
at closely, the median over the rounds. What a close look costs beyond a step is given in milliseconds, and the share of 1,000 and
of 10,000 steps that all of them take: the six up to step 16, and of those due later (12 and 15 in all) as many as fit into 2 % of
the time. The preflight, which runs once in a copy of the process before the first update, is timed apart. Memory: peak resident
size of one process each, close looks included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.models.transformer import Transformer
from chainrule.watch.pace import SHARE

RESULTS = Path(__file__).parent / "results" / "watch_overhead.json"
# name -> (layers, heads, hidden size, context, batch); 0 layers is an MLP of that width
SIZES = {
    "tiny MLP": (0, 0, 32, 0, 16),
    "Transformer, 0.8 M": (4, 4, 128, 64, 8),
    "Transformer, 10 M": (6, 6, 372, 64, 4),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLOSE = (2, 3, 4, 8, 16)  # steps that are looked at closely in any case; the first also warms up
WARM = 70  # steps, after which none is due up to the 128th


class Loop:
    """A plain training loop that can be run on."""

    def __init__(self, size: str, clock: str = "wall") -> None:
        torch.manual_seed(0)
        self.clock = CLOCKS[clock]
        layers, heads, width, context, batch = SIZES[size]
        if layers:
            self.model: nn.Module = Transformer(
                vocabulary=256, context=context, layers=layers, heads=heads, hidden=width
            )
            tokens = torch.randint(256, (batch, context + 1))
            self.inputs, self.targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        else:
            layers_of = [nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)]
            self.model = nn.Sequential(*layers_of)
            self.inputs, self.targets = torch.randn(batch, 16), torch.randint(4, (batch,))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def step(self) -> None:
        """One step as users write it."""
        self.optimizer.zero_grad()
        logits = self.model(self.inputs)
        loss = F.cross_entropy(logits.flatten(0, -2), self.targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def times(self, steps: int) -> list[float]:
        """Seconds of each of the steps."""
        spent = []
        for _ in range(steps):
            start = self.clock()
            self.step()
            spent.append(self.clock() - start)
        return spent


def overhead(size: str, rounds: int, steps: int, clock: str) -> dict[str, Any]:
    """Watched against unwatched, in turn."""
    alone, watched = Loop(size, clock), Loop(size, clock)
    parameters = sum(p.numel() for p in alone.model.parameters())
    plain: list[float] = []
    seen: list[float] = []
    alone.times(3)
    with cr.watch(tell=lambda _: None) as watch:  # the loop is begun, with its preflight, once
        start = time.perf_counter()
        watched.step()
        preflight = time.perf_counter() - start
    assert watch.report.stages
    looks: list[float] = []
    ratios: list[float] = []
    for _ in range(rounds):
        begun = watched_times(watched, WARM + steps)
        looks += [begun[n - 1] for n in CLOSE]
        seen += begun[WARM:]
        plain += alone.times(WARM + steps)[WARM:]
        ratios.append(statistics.median(seen[-steps:]) / statistics.median(plain[-steps:]))
    step = statistics.median(plain)
    extra = max(statistics.fmean(looks) - statistics.median(seen), 0.0)
    return {
        "parameters": parameters,
        "milliseconds": round(1e3 * step, 3),
        "ratio": round(statistics.median(ratios), 4),
        "close_look_milliseconds": round(1e3 * extra, 1),
        "share_of_1000_steps": round(share(extra, step, 1000, due=12), 4),
        "share_of_10000_steps": round(share(extra, step, 10_000, due=15), 4),
        "preflight_seconds": round(preflight, 1),
        "steps": len(plain),
        "clock": clock,
        "threads": torch.get_num_threads(),
    }


def share(look: float, step: float, steps: int, due: int) -> float:
    """Share of the time of a run that its close looks take; a look that was put off is made once it fits, one at a time."""
    spent = len(CLOSE) * look + look
    return max(spent, min(due * look, SHARE * steps * step + look)) / (steps * step)


def watched_times(loop: Loop, steps: int) -> list[float]:
    """Times under the observer and its judges, without a preflight."""
    from chainrule.checks.groups import JUDGES, judge
    from chainrule.watch.observer import Observer

    def judged(observed: Any) -> None:
        for table in JUDGES.values():
            judge(table, observed)

    with Observer([loop.model], on_step=judged).watching():
        return loop.times(steps)


def memory(size: str, watched: bool, steps: int = 40) -> float:
    """Peak resident megabytes of a process that makes some steps; called in a process of its own."""
    loop = Loop(size)
    if watched:
        watched_times(loop, steps)
    else:
        loop.times(steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_ratio(size: str) -> float:
    """Peak of a watched process over that of an unwatched one, both with chainrule imported."""
    peaks = [
        float(subprocess.check_output([sys.executable, __file__, "--memory", size, *flag], text=True))
        for flag in ([], ["--watched"])
    ]
    return round(peaks[1] / peaks[0], 4)


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--memory", default="", help=argparse.SUPPRESS)
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory(options.memory, options.watched))
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["sizes"] if RESULTS.exists() else {}
    for size in options.sizes:
        measured = overhead(size, options.rounds, options.steps, options.clock)
        results[size] = {**measured, "memory_ratio": memory_ratio(size)}
        print(size, json.dumps(results[size]), flush=True)
    stored = {
        "command": "python benchmarks/watch_overhead.py",
        "torch": str(torch.__version__),
        "dtype": "float32",
        "sizes": results,
    }
    RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
