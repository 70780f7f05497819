"""How many planted backward faults are caught: by chainrule's check, and by `torch.autograd.gradcheck` on the same set.

    python benchmarks/mutation_score.py [--judge NAME ...] [--every N] [--resume] [--table]

A judge is "gradcheck slow", "gradcheck fast", "chainrule" or "chainrule, kernels of one dtype"; all by default. Each adds
its rows to benchmarks/results/mutation_score.json, from which docs/mutation-score.md is written; --table writes the page.
--every N takes each N-th plant only (nothing is saved then). A full run takes about two hours of one core; --resume goes on
with one that was stopped: rows are saved as they come, the twins first and then the smallest faults.

gradcheck judges as a user would run it: the Function alone, in float64, with the inputs that the model really feeds it,
default tolerances, the generator seeded before each call. chainrule judges the whole model by `chainrule.check`, all
stages of the gradient. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch
from torch import Tensor
from torch.autograd import Function, gradcheck

import chainrule as cr
from chainrule.checks.gradient import STAGES
from faults.backward.plant import Plant
from faults.backward.plants import PLANTS

RESULTS = ROOT / "benchmarks" / "results" / "mutation_score.json"
PAGE = ROOT / "docs" / "mutation-score.md"
OURS, OURS_ONLY = "chainrule", "chainrule, kernels of one dtype"
SIZES: dict[torch.dtype, tuple[float | None, ...]] = {
    torch.float64: (None, 1e-1, 1e-2, 1e-3, 1e-4),
    torch.float32: (None, 1e-1, 1e-2, 1e-3, 1e-4),
    torch.bfloat16: (None, 1e-1, 1e-2),
}
GRADIENT = {name for name, _ in STAGES.values()}
ASKED = {"float64": 0.0, "float32": 1e-4, "bfloat16": 1e-2}  # sizes from which a fault has to be caught
HEAD = """# Mutation score: which planted backward faults are caught

Written by `python benchmarks/mutation_score.py --table` from `benchmarks/results/mutation_score.json`; do not edit.

A plant is a custom `autograd.Function` with a wrong backward at a known module of a four-layer transformer
(`tests/faults/backward`). *Size* is the norm of the error in a tensor's gradient over the norm of that gradient. Each
plant is tried at its natural size and, where it can be scaled, at 1e-1, 1e-2, 1e-3 and 1e-4 (bfloat16: 1e-1, 1e-2).
Counted are, in float64, all; in float32 those of 1e-4 or more; in bfloat16 those of 1e-2 or more.
gradcheck runs on each Function alone, in float64, on the inputs that the model feeds it, with default tolerances.
chainrule checks the whole model: in its own dtype and in float64 too; in a column *kernels of one dtype* the Functions refuse
another dtype, as a compiled kernel does. *named*: the first finding names the planted module (or the one whose tensor the
fault overwrites). The twins are the same Functions with the right backward.
"""
MISSED = "What chainrule missed or misplaced, and who spoke on a correct twin:"
TAIL = """gradcheck flags the right embedding because `padding_idx` leaves a row's gradient out by contract: a finite
difference sees that row, autograd does not. It misses small faults because its tolerances are absolute or grow with the
size of the tensor, and in fast mode because its directions are fixed and non-negative. It sees one Function at a time:
faults that show only between two calls (stale tensors, a shared buffer, a gradient overwritten) are out of its reach.
"""
Row = dict[str, Any]
Case = tuple[Plant, torch.dtype, float | None]


def seeded(function: type[Function]) -> Callable[..., Any]:
    """The Function with the same random draws in every call: gradcheck needs a deterministic one."""

    def call(*inputs: Tensor) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return function.apply(*inputs)

    return call


def by_gradcheck(plant: Plant, _: torch.dtype, size: float | None, twin: bool, fast: bool) -> Row:
    function, inputs = plant.twin_alone() if twin else plant.alone(size)
    passes = gradcheck(seeded(function), inputs, fast_mode=fast, raise_exception=False)
    return {"caught": not passes, "named": None}


def by_chainrule(plant: Plant, dtype: torch.dtype, size: float | None, twin: bool, only: bool) -> Row:
    model, loss, batch = plant.twin(dtype, only=only) if twin else plant.build(dtype, size, only=only)
    report = cr.check(cr.Setup(model, loss, [batch]), only=GRADIENT)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    said = [finding for finding in report.findings if finding.severity != "info"]
    where = errors[0].where if errors else said[0].where if said else ""
    caught = bool(said) if twin else bool(errors)
    return {"caught": caught, "named": bool(errors) and inside(where, plant), "where": where, "verdict": report.verdict}


def inside(where: str, plant: Plant) -> bool:
    """Whether a finding's place lies in the planted module, or in one whose tensor the fault overwrites."""
    return any(f"{where}.".startswith(f"{path}.") for path in (plant.module_path, *plant.victims))


JUDGES: dict[str, tuple[Callable[..., Row], dict[str, Any], tuple[torch.dtype, ...]]] = {
    "gradcheck slow": (by_gradcheck, {"fast": False}, (torch.float64,)),
    "gradcheck fast": (by_gradcheck, {"fast": True}, (torch.float64,)),
    OURS: (by_chainrule, {"only": False}, tuple(SIZES)),
    OURS_ONLY: (by_chainrule, {"only": True}, (torch.float32, torch.bfloat16)),
}


def cases(plants: Sequence[Plant], dtypes: tuple[torch.dtype, ...]) -> Iterator[Case]:
    """Every plant in every dtype and size in which it is a fault."""
    for plant in plants:
        for dtype in dtypes:
            if dtype in plant.dtypes:
                yield from ((plant, dtype, size) for size in SIZES[dtype] if size is None or plant.scalable)


def to_judge(name: str, plants: Sequence[Plant]) -> list[tuple[Plant, torch.dtype, float | None, bool]]:
    """The twins, one for each module, and then the plants, the smallest first."""
    dtypes = JUDGES[name][2]
    twins = {plant.module_path: plant for plant in plants}.values()
    faults = sorted(cases(plants, dtypes), key=lambda case: case[2] or 1.0)
    return [(plant, dtype, None, True) for plant in twins for dtype in dtypes] + [(*case, False) for case in faults]


def identity(row: Row) -> tuple[Any, ...]:
    """What tells one case of a judge from another."""
    return tuple(row[name] for name in ("judge", "kind", "site", "module", "twin", "dtype", "size"))


def judged(name: str, plants: Sequence[Plant], known: set[tuple[Any, ...]]) -> Iterator[Row]:
    """What one judge says of the plants and their twins, those known already left out."""
    judge, options, _ = JUDGES[name]
    todo = to_judge(name, plants)
    for done, (plant, dtype, size, twin) in enumerate(todo):
        row = {"judge": name, "kind": plant.kind, "site": plant.site, "module": plant.module_path, "twin": twin}
        row |= {"dtype": str(dtype).removeprefix("torch."), "size": size}
        if identity(row) in known:
            continue
        start = time.process_time()
        said = judge(plant, dtype, size, twin, **options)
        seconds = round(time.process_time() - start, 3)
        row |= {"measured": 0.0 if twin else float(f"{plant.measured(dtype, size):.3e}"), "seconds": seconds}
        yield row | said
        if sys.stderr.isatty() or done % 50 == 0:
            print(f"{name}: {done + 1}/{len(todo)}", file=sys.stderr)


def asked(row: Row) -> bool:
    """Whether the fault is as large as it must be to be caught in its dtype."""
    return not row["twin"] and (row["size"] or row["measured"]) >= ASKED[row["dtype"]]


def score(rows: Sequence[Row], field: str = "caught") -> str:
    """ "31/32" of the rows have the field set; "" if there are none."""
    return f"{sum(bool(row[field]) for row in rows)}/{len(rows)}" if rows else ""


def heard(rows: Sequence[Row]) -> list[str]:
    """The judges that have judged anything."""
    return [name for name in JUDGES if any(row["judge"] == name for row in rows)]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of the Markdown table: kinds by judge and dtype, caught of those asked for, named of those caught."""
    columns = [(name, str(dtype).removeprefix("torch.")) for name in heard(rows) for dtype in JUDGES[name][2]]
    yield "| kind of fault | " + " | ".join(f"{judge}, {dtype}" for judge, dtype in columns) + " | named |"
    yield "|---" * (len(columns) + 2) + "|"
    for kind in (*dict.fromkeys(plant.kind for plant in PLANTS), "**all**"):
        mine = [row for row in rows if kind in (row["kind"], "**all**") and asked(row)]
        cells = [score([r for r in mine if (r["judge"], r["dtype"]) == column]) for column in columns]
        caught = [row for row in mine if row["judge"] == OURS and row["caught"]]
        yield f"| {kind} | " + " | ".join(cells) + f" | {score(caught, 'named')} |"
    twins = [row for row in rows if row["twin"]]
    silent = [
        [r | {"silent": not r["caught"]} for r in twins if (r["judge"], r["dtype"]) == column] for column in columns
    ]
    yield "| **twins on which nothing is said** | " + " | ".join(score(cell, "silent") for cell in silent) + " | |"


def missed(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each fault that chainrule missed or misplaced, and each twin of which anyone said something."""
    for row in rows:
        what = f"{row['kind']} in {row['module']}, {row['dtype']}, size {row['size'] or row['measured']:.2g}"
        if row["twin"] and row["caught"]:
            yield f"- {row['judge']}, twin of {row['module']}, {row['dtype']}: a correct backward is flagged"
        elif row["judge"] == OURS and asked(row) and not row["caught"]:
            yield f"- missed: {what}"
        elif row["judge"] == OURS and asked(row) and not row["named"]:
            yield f"- named elsewhere ({row['where']}): {what}"


def unfinished(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each judge that has not judged everything."""
    for name in heard(rows):
        done, asked_for = sum(row["judge"] == name for row in rows), len(to_judge(name, PLANTS))
        if done < asked_for:
            yield f"{name} has judged {done} of {asked_for} cases so far: twins and smallest faults first."


def page(saved: dict[str, Any]) -> str:
    """docs/mutation-score.md."""
    rows = saved["rows"]
    kinds = len({plant.kind for plant in PLANTS})
    faults = list(missed(rows)) or ["nothing."]
    setting = f"{len(PLANTS)} plants of {kinds} kinds; torch {saved['torch']}, {saved['threads']} thread."
    return "\n".join((HEAD, setting, *unfinished(rows), "", *table(rows), "", MISSED, "", *faults, "", TAIL))


def one_row_a_line(saved: dict[str, Any]) -> str:
    """The results as JSON with each row on a line of its own, so that a new run is a readable difference."""
    rows = ",\n".join(json.dumps(row) for row in saved["rows"])
    head = json.dumps({key: value for key, value in saved.items() if key != "rows"}, indent=1)
    return f'{head.removesuffix(chr(10) + "}")},\n "rows": [\n{rows}\n]}}\n'


def save(rows: Sequence[Row]) -> None:
    """The results and the page made of them."""
    saved: dict[str, Any] = {"command": "python benchmarks/mutation_score.py", "torch": str(torch.__version__)}
    saved |= {"threads": 1, "chainrule": version("chainrule"), "asked": ASKED, "rows": list(rows)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(one_row_a_line(saved))
    PAGE.write_text(page(saved))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", action="append", choices=list(JUDGES))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for name in () if arguments.table else arguments.judge or JUDGES:
        rows = [row for row in rows if row["judge"] != name or arguments.resume]
        for row in judged(name, PLANTS[:: arguments.every], {identity(row) for row in rows}):
            rows.append(row)
            if arguments.every == 1:
                save(rows)
        mine = [row for row in rows if row["judge"] == name]
        print(
            "\n".join((name, *missed(mine), f"caught {score([row for row in mine if asked(row)])} of those asked for"))
        )
    if arguments.every == 1:
        save(rows)


if __name__ == "__main__":
    main()
