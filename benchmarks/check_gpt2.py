"""The whole check of a 12-layer GPT-2 (124M parameters, random weights): time of each stage, peak memory.

    python benchmarks/check_gpt2.py [--threads N] [--output results/check_gpt2.json]

Needs the [hf] extra. The batch is 2 x 256 tokens. Also the time of stage 2 (each formula alone) in forward passes of the
same float64 graph. `load_of_the_machine` is the load average at the end: above `threads`, others were using it too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import chainrule as cr
from chainrule.autodiff import evaluate
from chainrule.capture import capture, promote
from chainrule.checks.gradient import STAGES

GRADIENT = {name for name, _ in STAGES.values()}  # stages 0 to 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "check_gpt2.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    batch = {"input_ids": torch.randint(0, 50257, (2, 256))}
    batch["labels"] = batch["input_ids"]
    start, start_cpu = time.perf_counter(), time.process_time()
    report = cr.check(cr.Setup(model, loss, [batch]), only=GRADIENT)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    stages = {stage.name: round(stage.seconds, 1) for stage in report.stages if stage.name in STAGES}
    forward = forward_seconds(model, batch)
    result = {
        "command": " ".join(["python", "benchmarks/check_gpt2.py", *sys.argv[1:]]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch": [2, 256],
        "threads": options.threads,
        "torch": str(torch.__version__),
        "verdict": report.verdict,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "stages": stages,
        "resolutions": {stage.name: stage.resolution for stage in report.stages if stage.name in STAGES},
        "peak_gigabytes": round(peak, 2),
        "forward_float64_seconds": round(forward, 2),
        "stage_2_in_forward_passes": round(stages["2 each formula"] / forward, 1),
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(report)
    print(json.dumps(result, indent=1))


def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).loss


def forward_seconds(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Median of three forward passes of the promoted graph."""
    graph = promote(capture(model, loss, batch))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        evaluate(graph)
        times.append(time.perf_counter() - start)
    return sorted(times)[1]


if __name__ == "__main__":
    main()
