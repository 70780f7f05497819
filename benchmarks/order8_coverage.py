"""Order-8 differences: are the errors inside their bars, at what cost, and how do other tools do on the same task?

    python benchmarks/order8_coverage.py [--derivatives N] [--rivals N] [--output results/order8_coverage.json]

Entries drawn evenly from every parameter of a GELU and a ReLU transformer (embeddings included), an MLP and a batch-norm
CNN, with weights of rms 0.02 and 1. The truth is torch.autograd in float64. Errors are relative to the root mean square
of the parameter's gradient; where that is zero within rounding (an attention key's bias), to the model's largest.
The rivals get the same loss with the same branches held, on a random part of the entries: the 2-point difference of
torch.autograd.gradcheck (eps 1e-6) and numdifftools.Derivative (0.11 or later) with its defaults.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numdifftools
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.autodiff import evaluate
from chainrule.capture import capture
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.entry_stencils import order8_entries
from chainrule.compare.lines import graph_noise
from chainrule.compare.suffix import suffix_of
from chainrule.graph import Graph, Ref
from chainrule.numdiff.steps import relative_step, rms

ZERO = 1e-8  # a gradient smaller than this share of the model's largest is rounding


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        n_BTD = self.norm_1(x_BTD)
        q, k, v = (
            part(n_BTD).view(B, T, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.down(self.activation(self.up(self.norm_2(x_BTD))))


class GPT(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor], vocabulary: int = 64, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(16, width)
        self.blocks = nn.ModuleList(Block(width, 4, activation) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD)).flatten(0, 1)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 5))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def cases() -> Iterator[tuple[str, nn.Module, tuple[Tensor, Tensor]]]:
    """(name, model, batch), each with matrices of rms 0.02 and of rms 1."""
    tokens = torch.randint(0, 64, (2, 16))
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.randint(0, 5, (8,))
    rows = torch.randn(16, 12, dtype=torch.float64), torch.randint(0, 5, (16,))
    makers: list[tuple[str, Callable[[], nn.Module], tuple[Tensor, Tensor]]] = [
        ("GELU GPT", lambda: GPT(F.gelu), (tokens, tokens.roll(-1, 1).flatten())),
        ("ReLU GPT", lambda: GPT(F.relu), (tokens, tokens.roll(-1, 1).flatten())),
        ("MLP", mlp, rows),
        ("batch-norm CNN", CNN, images),
    ]
    for name, make, batch in makers:
        for size in (0.02, 1.0):
            model = make().double()
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=size)
            yield f"{name}, weights {size:g}", model, batch


@dataclass
class Tally:
    """Relative errors, whether inside the bar, evaluations; and the entries kept for the rivals."""

    errors: list[float] = field(default_factory=list)
    inside: int = 0
    evaluations: int = 0
    barred: bool = True

    def add(self, errors: Tensor, inside: Tensor, evaluations: int) -> None:
        self.errors += errors.tolist()
        self.inside += int(inside.sum())
        self.evaluations += evaluations

    def summary(self) -> dict[str, float | int]:
        errors, count = np.array(self.errors), len(self.errors)
        return {
            "derivatives": count,
            "inside_bar": self.inside / count if self.barred else None,
            "evaluations_each": round(self.evaluations / count, 2),
            "median_error": float(np.median(errors)),
            "largest_error": float(errors.max()),
        }


def measure(per_case: int, rivals: int, seed: int) -> dict[str, object]:
    torch.manual_seed(seed)
    total, parts = Tally(), {}
    other = {"gradcheck, 2 points": Tally(barred=False), "numdifftools": Tally()}
    for name, model, batch in cases():
        part = Tally()
        graph = capture(model, loss, batch)
        exact = autograd(model, batch)
        largest = max(rms(g) for g in exact.values())
        base = evaluate(graph)
        noise, spent = graph_noise(graph, base)
        part.evaluations += spent
        quota = -(-per_case // len(exact))
        for path, gradient in exact.items():
            ref = Ref(graph.parameters[path].name)
            flat = torch.randint(0, gradient.numel(), (quota,))
            source = EntryLines(graph, ref, base)
            estimate = order8_entries(source, flat, relative_step(base[ref.name]).h, noise)
            size = rms(gradient) if rms(gradient) > ZERO * largest else largest
            error = (estimate.value - gradient.flatten()[flat]).abs()
            part.add(error / size, error <= estimate.bar, estimate.evaluations)
            compare_rivals(graph, ref, base, flat[: -(-rivals // (8 * len(exact)))], gradient, size, other)
        parts[name] = part.summary()
        print(name, parts[name], flush=True)
        total.errors += part.errors
        total.inside += part.inside
        total.evaluations += part.evaluations
    return {"order 8": total.summary(), **{k: v.summary() for k, v in other.items() if v.errors}, "by_model": parts}


def autograd(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model, batch).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def compare_rivals(
    graph: Graph,
    ref: Ref,
    base: dict[str, Tensor],
    flat: Tensor,
    gradient: Tensor,
    size: float,
    tallies: dict[str, Tally],
) -> None:
    """The same derivatives by gradcheck's central difference and by numdifftools, one at a time."""
    suffix = suffix_of(graph, (ref,), base)
    for index in flat.tolist():
        evaluations = 0

        def at(x: float, index: int = index) -> float:
            nonlocal evaluations
            evaluations += 1
            weight = base[ref.name].clone()
            weight.view(-1)[index] += x
            return float(suffix.loss({ref: weight}))

        truth = float(gradient.flatten()[index])
        two = (at(1e-6) - at(-1e-6)) / 2e-6
        tallies["gradcheck, 2 points"].add(torch.tensor([abs(two - truth) / size]), torch.zeros(1), evaluations)
        evaluations = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = numdifftools.Derivative(np.vectorize(at, otypes=[float]), full_output=True)(np.array([0.0]))
        error = abs(float(found.estimate[0]) - truth)
        inside = torch.tensor([error <= float(found.error_estimate[0])])
        tallies["numdifftools"].add(torch.tensor([error / size]), inside, evaluations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--derivatives", type=int, default=10_000)
    parser.add_argument("--rivals", type=int, default=400, help="derivatives that the rivals compute as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "order8_coverage.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    result = {
        "command": " ".join(["python", "benchmarks/order8_coverage.py", *sys.argv[1:]]),
        "shapes": "GPT: 2 layers, width 32, 4 heads, vocabulary 64, 2 x 16 tokens; MLP 12-48-48-5; CNN: 8 x 3 x 8 x 8",
        "dtype": "float64",
        "threads": 1,
        "torch": str(torch.__version__),
        "numdifftools_version": numdifftools.__version__,
        "seed": options.seed,
        **measure(-(-options.derivatives // 8), options.rivals, options.seed),
        "seconds": round(time.perf_counter() - start, 1),
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "by_model"}, indent=1))


if __name__ == "__main__":
    main()
