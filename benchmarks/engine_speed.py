"""Our reverse mode against torch.autograd, eager and compiled: forward and backward of a 4-layer GPT in float32.

    python benchmarks/engine_speed.py [--threads N] [--output results/engine_speed.json]

The engines take turns in one process, so that a drift of the machine's speed hits all; medians of the ratios are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from chainrule.autodiff import compiled, value_and_grad
from chainrule.capture import bind, capture
from chainrule.models.transformer import Transformer

SHAPE = {"layers": 4, "heads": 4, "hidden": 256, "context": 256, "vocabulary": 4096}
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "engine_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = measure(contestants(), options.rounds)
    result = {
        "command": " ".join(["python", "benchmarks/engine_speed.py", *sys.argv[1:]]),
        "shape": {**SHAPE, "batch": BATCH},
        "dtype": "float32",
        "threads": options.threads,
        "torch": str(torch.__version__),
        "milliseconds": {name: round(1000 * statistics.median(times), 1) for name, times in seconds.items()},
        "eager_ratio": ratio(seconds["chain rule, eager"], seconds["autograd, eager"]),
        "compiled_ratio": ratio(seconds["chain rule, compiled"], seconds["autograd, compiled"]),
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def contestants() -> dict[str, Callable[[], object]]:
    """Loss and gradients of the same model on the same batch, four ways; checked to agree first."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(**SHAPE, generator=generator)
    batch = {
        name: torch.randint(SHAPE["vocabulary"], (BATCH, SHAPE["context"]), generator=generator) for name in ("x", "y")
    }

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch["x"]).flatten(0, 1), batch["y"].flatten())

    graph = capture(model, loss, batch)
    leaves = bind(graph, model, batch)
    fast_rules = compiled(graph)
    fast_model = torch.compile(lambda: loss(model, batch))

    def autograd(value: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        value().backward()
        return [parameter.grad for parameter in model.parameters()]

    ways: dict[str, Callable[[], object]] = {
        "autograd, eager": lambda: autograd(lambda: loss(model, batch)),
        "chain rule, eager": lambda: value_and_grad(graph, leaves)[1],
        "autograd, compiled": lambda: autograd(fast_model),
        "chain rule, compiled": lambda: fast_rules(leaves)[1],
    }
    reference = dict(zip((name for name, _ in model.named_parameters()), ways["autograd, eager"](), strict=True))
    for name in ("chain rule, eager", "chain rule, compiled"):
        for path, gradient in ways[name]().items():
            torch.testing.assert_close(
                gradient, reference[path], rtol=1e-3, atol=1e-5 * float(reference[path].abs().max() + 1e-4)
            )
    return ways


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns, after two rounds of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the ratios, round by round."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


if __name__ == "__main__":
    main()
