"""Every planted fault and its repaired twin under all checks at once: what is caught, where, and what is said in vain.

    python benchmarks/fault_table.py                # runs all cases (a quarter of an hour on two cores), writes the JSON
    python benchmarks/fault_table.py --again G35 O06 # these cases only (or all that begin so); the JSON keeps the others
    python benchmarks/fault_table.py --table        # writes docs/faults.md from the JSON

A row of the catalogue counts as caught if one of its cases is; a row without a case counts as missed.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import pkgutil
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
RESULTS = HERE / "results" / "faults.json"
TRAINCHECK = HERE / "results" / "traincheck.json"
TABLE = HERE.parent / "docs" / "faults.md"
sys.path.insert(0, str(TESTS))


def cases() -> list[Any]:
    """All cases of tests/faults."""
    import faults

    names = sorted(module.name for module in pkgutil.iter_modules(faults.__path__) if module.name.endswith("_faults"))
    return [case for name in names for case in importlib.import_module(f"faults.{name}").CASES]


def examined(number: int) -> dict[str, Any]:
    """One case under all checks."""
    import torch

    torch.set_num_threads(1)
    case = cases()[number]
    start = time.perf_counter()
    broken, twin = (findings(case, broken=broken) for broken in (True, False))
    own = [f for f in broken if f["check"] == case.check]
    return {
        "id": case.id,
        "source": case.source,
        "fault": case.fault,
        "when": case.when,
        "check": case.check,
        "caught": bool(own),
        "located": any(case.where in f["place"] for f in own),
        "also": sorted({f["check"] for f in broken} - {case.check}),
        "twin": sorted({f"{f['severity']}[{f['check']}]" for f in twin}),
        "seconds": round(time.perf_counter() - start, 1),
    }


def findings(case: Any, *, broken: bool) -> list[dict[str, str]]:
    """What is said of the case, remarks left out; the words of an error that `check` raises count as a finding."""
    import torch

    import chainrule as cr

    torch.manual_seed(0)
    try:
        built = case.build(broken)
        if isinstance(built, cr.Setup):
            # a dear check runs only where it is asked for by name
            report = cr.check(built, only=(case.check,) if dear(case.check) else ())
        else:
            with cr.watch(tell=lambda _: None) as watch:
                built()
            report = watch.report
    except cr.ChainruleError as error:
        return [{"check": "refused", "severity": "error", "place": str(error)}]
    return [
        {"check": f.check, "severity": f.severity, "place": f"{f.where} {f.source.code if f.source else ''}"}
        for f in report.findings
        if f.severity != "info"
    ]


def dear(name: str) -> bool:
    """True for a check that runs on request only."""
    from chainrule.checks.groups import ON_REQUEST

    return any(check.NAME == name for table in ON_REQUEST.values() for check in table)


def catalogue() -> list[dict[str, str]]:
    """The rows of the catalogue of real cases."""
    with (TESTS / "faults" / "catalogue.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(case: dict[str, Any]) -> str:
    """Row of the catalogue that a case rebuilds."""
    row = re.match(r"[A-Z]+\d\d", case["id"])
    return row.group() if row else str(case["id"])


def scores(results: list[dict[str, Any]]) -> dict[str, str]:
    """The figures: counted over cases, and over the catalogue's rows."""
    caught = {row_of(case) for case in results if case["caught"]}
    rows = catalogue()
    before = [r["id"] for r in rows if r["when"].startswith("P") and "H" not in r["when"] and "spec" not in r["groups"]]
    steps = [
        r["id"] for r in rows if r["when"].startswith("k") and "H" not in r["when"] and r["component"] != "hw/dist"
    ]
    gradient = [c for c in results if c["caught"] and c["check"] in ("gradient-mismatch", "cut-gradient")]
    noisy = [case["id"] for case in results if case["twin"]]

    def share(part: int, whole: int) -> str:
        return f"{part} of {whole} ({part / max(whole, 1):.1%})"

    return {
        "cases caught": share(sum(case["caught"] for case in results), len(results)),
        "caught cases located": share(
            sum(case["located"] for case in results if case["caught"]), sum(case["caught"] for case in results)
        ),
        "caught gradient cases located": share(sum(case["located"] for case in gradient), len(gradient)),
        "catalogue rows before training (P, not H, not spec) caught": share(len(caught & {*before}), len(before)),
        "catalogue rows of the first steps (k, not H) caught": share(len(caught & {*steps}), len(steps)),
        "rows before training missed": ", ".join(sorted({*before} - caught)) or "none",
        "rows of the first steps missed": ", ".join(sorted({*steps} - caught)) or "none",
        "repaired twins of which something is said": f"{share(len(noisy), len(results))}: {', '.join(noisy) or 'none'}",
    }


def table(stored: dict[str, Any]) -> str:
    """docs/faults.md."""
    results = stored["cases"]
    lines = [
        "# Faults that real users met, rebuilt, and what chainrule says of them",
        "",
        f"Made by `{stored['command']}` and its `--table` (torch {stored['torch']}). Every case is a model with the fault",
        "and its repaired twin (`tests/faults/`), under all checks at once. *P*: caught before the first update; *k*: within",
        "the first steps of the loop. *Twin*: what is said of the repaired twin.",
        "",
        "| figure | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in stored["scores"].items()),
        "",
        "| case | source | fault | when | check | caught | located | also | twin |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in sorted(results, key=lambda case: case["id"]):
        marks = ["yes" if case[key] else "**no**" for key in ("caught", "located")]
        cells = [case["id"], case["source"], case["fault"], case["when"], case["check"], *marks]
        lines.append("| " + " | ".join([*cells, ", ".join(case["also"]), ", ".join(case["twin"])]) + " |")
    return "\n".join([*lines, *beside({case["id"]: case for case in results})]) + "\n"


def beside(ours: dict[str, dict[str, Any]]) -> list[str]:
    """TrainCheck's score on the cases that `traincheck_baseline` has run."""
    if not TRAINCHECK.exists():
        return []
    stored = json.loads(TRAINCHECK.read_text(encoding="utf-8"))
    lines = [
        "",
        "## Beside it: TrainCheck",
        "",
        f"`{stored['command']}` ({stored['traincheck']}, torch {stored['torch']}). TrainCheck learns invariants from healthy",
        "runs; it was given two of each repaired twin, and a third to see what it says of a healthy one. It can be tried on any",
        "case that trains, which all of these do; it takes minutes for each, so that a few were run. Caught: it violates an",
        "invariant that the healthy run does not.",
        "",
        "| case | fault | invariants learned | violated | by the healthy run | TrainCheck | chainrule |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in stored["cases"]:
        own = ours[case["id"]]
        said = "yes" if case["caught"] else case.get("error", "**no**").replace("\n", " ")
        counts = [str(case.get(key, "")) for key in ("invariants", "violated", "violated_by_the_healthy_run")]
        row = [case["id"], own["fault"], *counts, said, "yes" if own["caught"] else "**no**"]
        lines.append("| " + " | ".join(row) + " |")
    first = [f"{case['id']}: {', '.join(case['first'][:3])}" for case in stored["cases"] if case.get("first")]
    return [*lines, "", "The first of what it names: " + "; ".join(first) + "."]


def main() -> None:
    """Run, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write docs/faults.md from the stored results")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="only cases whose id begins with this; nothing is written")
    parser.add_argument("--again", nargs="+", default=[], help="only these cases; their rows of the JSON are replaced")
    options = parser.parse_args()
    if options.table:
        TABLE.write_text(table(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    chosen = tuple(options.again) or options.only
    numbers = [n for n, case in enumerate(cases()) if case.id.startswith(chosen)]
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["cases"] if options.again else []
    with ProcessPoolExecutor(options.workers) as pool:
        results: list[dict[str, Any]] = []
        for result in pool.map(examined, numbers):
            results.append(result)
            if not (result["caught"] and result["located"]) or result["twin"]:
                print(json.dumps(result), flush=True)
            if options.again:
                store(known, results)
    print(json.dumps(scores(results), indent=1))
    if not options.only:
        store(known, results)


def store(known: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """Write what is known and, in the place of what was known of the same cases, what was found now."""
    import torch

    again = {case["id"] for case in results}
    merged = [case for case in known if case["id"] not in again] + results
    stored = {
        "command": "python benchmarks/fault_table.py",
        "torch": str(torch.__version__),
        "scores": scores(merged),
        "cases": merged,
    }
    RESULTS.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
