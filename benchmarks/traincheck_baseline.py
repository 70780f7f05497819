"""TrainCheck (Jiang et al., OSDI 2025; PyPI traincheck) on cases of tests/faults, each run as a training script.

    python benchmarks/traincheck_baseline.py                # makes its own virtual environment; minutes for each case
    python benchmarks/traincheck_baseline.py --venv DIR     # or uses one that was made before
    python benchmarks/traincheck_baseline.py --again G01    # only the program with this case; the others as they are stored

TrainCheck learns invariants from healthy runs and looks for violations in another run. It is given what its paper asks for: two
reference runs of the case's repaired twin, with other seeds and lengths; then it checks the fault and, for its false alarms, a
third run of the twin. Cases that have the same twin share the references. A fault counts as caught if it violates an invariant
that the healthy run does not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "traincheck.json"
RELEASE = "traincheck==0.2.0"
# (module, cases whose repaired twins are one program)
PROGRAMS = (
    ("loop_faults", ("TC12a", "L-zero-a", "R13a", "TC19w", "L-twice")),
    ("kernels_faults", ("G01",)),
    ("gradient_faults", ("G21b",)),
    ("update_faults", ("O15a",)),
)
# name -> (broken, seed, steps)
RUNS = {"reference": (False, 0, 8), "reference2": (False, 1, 10), "healthy": (False, 3, 12)}
SCRIPT = """import sys

sys.path[:0] = {paths!r}
import torch
from faults import {module} as cases

torch.manual_seed({seed})
case = next(case for case in cases.CASES if case.id == {id!r})
setup = case.build({broken})
model = setup.model
optimizer = setup.optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
batches = list(setup.batches)
for step in range({steps}):
    batch = batches[step % len(batches)]
    if setup.step is not None:
        setup.step(model, batch, optimizer)
    else:
        optimizer.zero_grad()
        loss = setup.loss(model, batch)
        loss.backward()
        optimizer.step()
"""


def installed(folder: Path) -> Path:
    """The programs of a virtual environment with TrainCheck, on top of the packages of this one."""
    if not (folder / "bin" / "traincheck-collect").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin" / "python"
        own = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        Path(own.strip(), "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", RELEASE], check=True)
    return folder / "bin"


class TrainCheck:
    """Its three programs on the scripts of one folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        self._environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def trace(self, name: str, text: str) -> Path:
        """Run a script under its instrumentation; the folder of its trace."""
        script = self._folder / f"{name}.py"
        script.write_text(text)
        traces = self._folder / name
        self._run("collect", "--pyscript", script, "--models-to-track", "model", "--output-dir", traces)
        return traces

    def inferred(self, name: str, *traces: Path) -> Path:
        """The invariants of reference runs."""
        invariants = self._folder / f"{name}.json"
        self._run("infer", "-f", *traces, "-o", invariants)
        return invariants

    def violated(self, traces: Path, invariants: Path) -> list[str]:
        """The invariants that a run violates."""
        results = self._folder / f"of_{traces.name}"
        self._run("check", "-f", traces, "-i", invariants, "-o", results, "--no-html-report")
        (summary,) = results.glob("*/violations_summary.json")
        return sorted(violation["display_name"] for violation in json.loads(summary.read_text())["violations"])

    def _run(self, program: str, *words: Any) -> None:
        command = [str(self._programs / f"traincheck-{program}"), *map(str, words)]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"traincheck-{program} ended with {done.returncode}: {done.stderr[-500:]}")


def program_of(module: str, case: str, broken: bool, seed: int, steps: int) -> str:
    paths = [str(HERE.parent / "tests"), str(HERE.parent / "src")]
    return SCRIPT.format(paths=paths, module=module, id=case, broken=broken, seed=seed, steps=steps)


def examined(tool: TrainCheck, module: str, cases: tuple[str, ...]) -> list[dict[str, Any]]:
    """The cases of one program."""
    start = time.perf_counter()
    traces = {name: tool.trace(f"{cases[0]}_{name}", program_of(module, cases[0], *how)) for name, how in RUNS.items()}
    invariants = tool.inferred(cases[0], traces["reference"], traces["reference2"])
    false = tool.violated(traces["healthy"], invariants)
    found = []
    for case in cases:
        violated = tool.violated(tool.trace(case, program_of(module, case, True, 2, 8)), invariants)
        own = sorted(set(violated) - set(false))
        found.append(
            {
                "id": case,
                "invariants": len(invariants.read_text().splitlines()),
                "violated": len(violated),
                "violated_by_the_healthy_run": len(false),
                "caught": bool(own),
                "first": own[:8],
                "of_the_healthy_run": false[:8],
                "seconds": round(time.perf_counter() - start),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def wanted(again: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """The programs to run: all, or those of some cases."""
    return [(module, cases) for module, cases in PROGRAMS if not again or set(again) & set(cases)]


def stored_but(cases: set[str]) -> list[dict[str, Any]]:
    """The stored results of other cases."""
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["cases"] if RESULTS.exists() else []
    return [case for case in old if case["id"] not in cases]


def main() -> None:
    """Run the programs; what is finished is kept if it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--again", nargs="*", default=[])
    options = parser.parse_args()
    import torch

    programs_wanted = wanted(options.again)
    results = stored_but({case for _, cases in programs_wanted for case in cases})
    with tempfile.TemporaryDirectory() as folder:
        programs = installed(options.venv or Path(folder, "venv"))
        for module, cases in programs_wanted:
            tool = TrainCheck(programs.resolve(), Path(tempfile.mkdtemp(dir=folder)))
            try:
                results += examined(tool, module, cases)
            except RuntimeError as error:
                results += [{"id": case, "caught": False, "error": str(error)[-300:]} for case in cases]
                print(error, flush=True)
            stored = {
                "command": "python benchmarks/traincheck_baseline.py",
                "torch": str(torch.__version__),
                "traincheck": RELEASE,
                "cases": results,
            }
            RESULTS.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
