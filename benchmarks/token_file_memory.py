"""What a token file costs in resident memory: windows from all over a file of 1 GB, read as training reads them.

    python benchmarks/token_file_memory.py            # writes benchmarks/results/token_file_memory.json

Beside it the two other ways: a memory map that is kept (what it has touched counts as resident), and the file loaded. The
file is made for the measurement, of random ids, and removed. Each way is a process of its own; growth is the largest
resident size (RSS in /proc/self/statm, so Linux only) seen while windows are read, minus that before the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chainrule.data.token_file import TokenFile, TokenRow
from chainrule.data.windows import Windows

RESULTS = Path(__file__).parent / "results" / "token_file_memory.json"
KIND, CONTEXT, BATCH, BATCHES = np.dtype(np.uint16), 256, 12, 2000
WAYS = ("token file", "map that is kept", "loaded")


def resident() -> float:
    """MB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def opened(path: Path, way: str) -> TokenRow:
    if way == "token file":
        return TokenFile(path, KIND, path.stat().st_size // KIND.itemsize)
    return np.memmap(path, KIND, "r") if way == "map that is kept" else np.fromfile(path, KIND)


def measured(path: Path, way: str) -> dict[str, float]:
    """Growth in MB and microseconds a batch, in a process that does nothing else."""
    before = resident()
    windows, largest = Windows(opened(path, way), CONTEXT), before
    order = np.random.default_rng(0).permutation(len(windows))
    start = time.process_time()
    for number in range(BATCHES):
        windows.batch(order[number * BATCH : (number + 1) * BATCH], torch.device("cpu"))
        if number % 50 == 0:
            largest = max(largest, resident())
    seconds = time.process_time() - start
    return {"growth_megabytes": max(largest, resident()) - before, "microseconds_a_batch": seconds / BATCHES * 1e6}


def make_file(path: Path, gigabytes: float) -> None:
    draw, left = np.random.default_rng(1), round(gigabytes * 1e9) // KIND.itemsize
    with path.open("wb") as file:
        while left:
            count = min(left, 10_000_000)
            file.write(draw.integers(0, 50_257, count, dtype=KIND).tobytes())
            left -= count


def in_a_process(path: Path, way: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", way, "--file", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--measure", choices=WAYS)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.file, given.measure)))
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        make_file(path := Path(folder) / "tokens.bin", given.gigabytes)
        ways = {way: in_a_process(path, way) for way in WAYS}
    for way, figures in ways.items():
        print(f"{way:<18}{figures['growth_megabytes']:>9,.1f} MB {figures['microseconds_a_batch']:>9,.0f} us a batch")
    about = {
        "command": f"python benchmarks/token_file_memory.py --gigabytes {given.gigabytes:g}",
        "file_gigabytes": given.gigabytes,
        "windows": {"context": CONTEXT, "batch": BATCH, "batches": BATCHES, "dtype": KIND.name},
        "versions": {"numpy": np.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    RESULTS.write_text(json.dumps(about | {"ways": ways}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
