"""Capture of a 12-layer GPT-2 (124M parameters), warm, and what torch's own export of it takes.

    python benchmarks/capture_speed.py [--threads N] [--rounds N] [--output results/capture_speed.json]

Both take turns in one process, so that a drift of the machine's speed hits both; medians are kept. CPU seconds stand beside
the clock's, since they do not count what other programs took. The transformers model has more views and masks than our own
Transformer of the same size, hence more nodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.capture import capture
from chainrule.capture.export import LossModule
from chainrule.models.transformer import Transformer

GPT2 = {"layers": 12, "heads": 12, "hidden": 768, "context": 1024, "vocabulary": 50257}
TOKENS = (4, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "capture_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "command": " ".join(["python", "benchmarks/capture_speed.py", *sys.argv[1:]]),
        "shape": {**GPT2, "tokens": list(TOKENS)},
        "dtype": "float32",
        "threads": options.threads,
        "torch": str(torch.__version__),
        "models": {name: measured(*build(), options.rounds) for name, build in MODELS.items()},
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def own() -> tuple[nn.Module, Any, Any]:
    model = Transformer(**GPT2, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(GPT2["vocabulary"], (TOKENS[0], TOKENS[1] + 1), generator=torch.Generator().manual_seed(1))

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    return model, loss, ids


def of_transformers() -> tuple[nn.Module, Any, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).train()
    ids = torch.randint(GPT2["vocabulary"], TOKENS, generator=torch.Generator().manual_seed(1))
    return model, lambda model, batch: model(**batch).loss, {"input_ids": ids, "labels": ids}


MODELS = {"chainrule.models.Transformer": own, "transformers.GPT2LMHeadModel, with dropout": of_transformers}


def measured(model: nn.Module, loss: Any, batch: Any, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, after one round of each to warm up."""
    wrapper = LossModule(model, loss, batch)
    tensors = tuple(batch.values()) if isinstance(batch, dict) else (batch,)

    def export_alone() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.export(wrapper, tensors, strict=False).run_decompositions({})

    ways = {"capture": lambda: capture(model, loss, batch), "torch.export alone": export_alone}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            if turn:
                times[name].append(timed(way))
            else:
                way()
    graph = capture(model, loss, batch)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "nodes": len(graph.nodes),
        "kinds": len({node.op for node in graph.nodes}),
        "seconds": {name: round(statistics.median(clock for clock, _ in pairs), 2) for name, pairs in times.items()},
        "cpu_seconds": {name: round(statistics.median(cpu for _, cpu in pairs), 2) for name, pairs in times.items()},
    }


def timed(way: Callable[[], object]) -> tuple[float, float]:
    clock, cpu = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    main()
