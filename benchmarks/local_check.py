"""Every formula of a model against differences of that formula alone: the cost in forward passes, and the resolution.

    python benchmarks/local_check.py [--rounds N] [--output results/local_check.json]

Times are CPU seconds of the process with one thread; a forward pass is an evaluation of the same float64 graph.
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
from torch import nn
from torch.nn import functional as F

from chainrule.autodiff import evaluate
from chainrule.autodiff.reverse import active_values, output_refs
from chainrule.capture import capture, promote
from chainrule.compare.local import local_check
from chainrule.derivatives import FLAT, RULES
from chainrule.graph import Graph
from chainrule.models.transformer import Transformer, next_token_loss

SHAPES = {
    "GPT 0.8M": {"vocabulary": 256, "layers": 4, "heads": 4, "hidden": 128, "context": 64, "tied": False},
    "GPT 5M": {"vocabulary": 4096, "layers": 4, "heads": 4, "hidden": 256, "context": 64, "tied": False},
}
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "local_check.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": " ".join(["python", "benchmarks/local_check.py", *sys.argv[1:]]),
        "shapes": {"batch": BATCH, **SHAPES, "CNN": "32 x 3 x 32 x 32 images"},
        "dtype": "float64",
        "threads": 1,
        "torch": str(torch.__version__),
        "models": {name: measure(graph, options.rounds) for name, graph in graphs().items()},
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def graphs() -> dict[str, Graph]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in SHAPES.items():
        model = Transformer(**shape, generator=generator)
        tokens, targets = torch.randint(shape["vocabulary"], (2, BATCH, shape["context"]), generator=generator)
        graph = capture(model, next_token_loss, {"tokens": tokens, "targets": targets})
        found[name] = promote(graph, torch.float64)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU()]
    cnn = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    images = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    found["CNN"] = promote(capture(cnn, lambda m, b: F.cross_entropy(m(b[0]), b[1]), images), torch.float64)
    return found


def measure(graph: Graph, rounds: int) -> dict[str, float | int]:
    base, active = evaluate(graph), active_values(graph)
    nodes = [n for n in graph.nodes if n.op in RULES and n.op not in FLAT and any(r in active for r in output_refs(n))]

    def check() -> list[tuple[float, float]]:
        generator = torch.Generator().manual_seed(0)
        found = [local_check(node, base, RULES[node.op], generator) for node in nodes]
        return [
            (abs(r.analytic - float(r.estimate.value)) / float(r.estimate.bar), float(r.estimate.bar) / r.scale)
            for r in found
            if r is not None
        ]

    results = check()
    ratios = [seconds(check) / min(seconds(lambda: evaluate(graph)) for _ in range(3)) for _ in range(rounds)]
    return {
        "formulas": len(results),
        "forward_passes": round(statistics.median(ratios), 1),
        "largest_error_in_bars": max(error for error, _ in results),
        "median_bar_in_scale": statistics.median(bar for _, bar in results),
        "largest_bar_in_scale": max(bar for _, bar in results),
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
