"""The numerical gradient of one whole weight matrix, attention's W_V, against the naive loop over its elements.

    python benchmarks/weight_matrix.py [--rounds N] [--output results/weight_matrix.json]

naive      for each of d² elements: the model's own forward pass with W + h E and with W - h E, nothing reused
per entry  the same central differences, each of them, by chainrule.compare.entries
waist      the same gradient from differences at a waist, by chainrule.compare.waist

Ratios are of the process's CPU time per gradient (one thread: what a clock on the wall shows on an idle machine). They
are taken in rounds in one process, in turn, and the median is kept. A round times the naive loop on 48 elements and the
per-entry method on 2 rows of the matrix, which stand for all: each element, each row is the same work. The waist's
gradient is computed in full in every round.
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
from torch import Tensor

from chainrule.autodiff import evaluate
from chainrule.capture import capture
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.entry_stencils import stencil_entries
from chainrule.compare.waist import numerical_at_waist
from chainrule.graph import Ref
from chainrule.models.transformer import Transformer, next_token_loss
from chainrule.numdiff.stencils import PLAIN_CENTRAL

SHAPE = {"layers": 4, "heads": 4, "hidden": 256, "context": 16, "vocabulary": 256, "tied": False}
STEP = 1e-4
ELEMENTS = 48
ROWS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "weight_matrix.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": " ".join(["python", "benchmarks/weight_matrix.py", *sys.argv[1:]]),
        "shape": SHAPE,
        "dtype": "float64",
        "threads": 1,
        "torch": str(torch.__version__),
        "method": f"central differences, h = {STEP:g}",
        "gradients": [measure(tokens, layer, options.rounds) for tokens in (16, 8) for layer in range(SHAPE["layers"])],
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def measure(tokens: int, layer: int, rounds: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    model = Transformer(**SHAPE, generator=generator).double()
    batch = {name: torch.randint(256, (1, tokens), generator=generator) for name in ("tokens", "targets")}
    name = f"blocks.{layer}.attention.value.weight"
    weight = model.get_parameter(name)
    graph = capture(model, next_token_loss, batch)
    base = evaluate(graph)
    indices = torch.arange(ROWS * weight.shape[1])
    steps = torch.full((len(indices),), STEP, dtype=torch.float64)
    start = Ref(graph.parameters[name].name)

    def by_entry() -> Tensor:
        return stencil_entries(EntryLines(graph, start, base), indices, PLAIN_CENTRAL, steps, 0.0).value

    def at_waist() -> Tensor:
        return numerical_at_waist(graph, name, h=STEP).gradient

    times: dict[str, list[float]] = {"naive": [], "per entry": [], "waist": []}
    for _ in range(rounds):
        times["naive"].append(seconds(lambda: naive(model, weight, batch)) * weight.numel() / ELEMENTS)
        times["per entry"].append(seconds(by_entry) * weight.numel() / len(indices))
        times["waist"].append(seconds(at_waist))
    next_token_loss(model, batch).backward()
    exact = weight.grad
    waist = numerical_at_waist(graph, name, h=STEP)
    order8 = numerical_at_waist(graph, name, method="order8") if tokens == 8 else waist
    entries = by_entry().view(ROWS, -1)
    result = {
        "tokens": tokens,
        "layer": layer,
        "seconds": {way: round(statistics.median(found), 2) for way, found in times.items()},
        "times_faster": {
            way: round(statistics.median(n / t for n, t in zip(times["naive"], times[way], strict=True)), 1)
            for way in ("per entry", "waist")
        },
        "evaluations": {"naive": 2 * weight.numel(), "per entry": 2 * weight.numel(), "waist": waist.evaluations},
        "relative_error": {
            "per entry": float((entries - exact[:ROWS]).norm() / exact[:ROWS].norm()),
            f"waist, {order8.method}": float((order8.gradient - exact).norm() / exact.norm()),
        },
        "inside_bar": {
            f"waist, {order8.method}": float(((order8.gradient - exact).abs() <= order8.bar).double().mean()),
        },
        "reason": waist.reason,
    }
    print(json.dumps(result), flush=True)
    return result


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.no_grad()
def naive(model: torch.nn.Module, weight: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The textbook's loop over the first elements."""
    gradient = torch.zeros(ELEMENTS, dtype=torch.float64)
    entries = weight.view(-1)
    for i in range(ELEMENTS):
        before = entries[i].clone()
        entries[i] = before + STEP
        plus = next_token_loss(model, batch)
        entries[i] = before - STEP
        minus = next_token_loss(model, batch)
        entries[i] = before
        gradient[i] = (plus - minus) / (2 * STEP)
    return gradient


if __name__ == "__main__":
    main()
