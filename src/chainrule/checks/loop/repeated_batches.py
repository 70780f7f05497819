"""repeated-batches: the workers of a loader give the same batches.

What it checks
    Within one epoch no batch comes again from another worker.
Why it matters
    An iterable data set that does not ask which worker it is gives everything once per worker; NumPy's generator, forked with
    the process, gives each worker the same random numbers. The epoch is as many times as long and holds no more.
How it decides
    Half or more of an epoch's batches, four at least, have a fingerprint that occurs as often as there are workers, and not all
    batches are alike: an error. As many repetitions without workers are a warning.
Broken
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(self.lines)
Repaired
        def __iter__(self):
            worker = get_worker_info()
            return itertools.islice(self.lines, worker.id, None, worker.num_workers)
Limits
    A fingerprint is that of a batch's first numbers. Workers that give other samples with the same augmentation are not seen.
"""

from __future__ import annotations

from collections import Counter

from chainrule.checks.loop.timeline import Epoch, epochs, training_loader
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "repeated-batches"
LEAST = 4


def judge(observed: Observed) -> Outcome:
    """Whether batches come several times in an epoch."""
    loader = training_loader(observed)
    if loader is None:
        return NotRun("the loop takes no batches from a DataLoader")
    seen = [epoch for epoch in epochs(observed, loader) if len(epoch.fingerprints) >= LEAST]
    if not seen:
        return NotRun("no epoch of four batches or more was seen")
    repeated = [epoch for epoch in seen if _repeats(epoch)]
    return [_finding(loader, repeated[0])] if repeated else []


def _repeats(epoch: Epoch) -> bool:
    counts = Counter(epoch.fingerprints)
    again = sum(count for count in counts.values() if count >= max(2, _workers(epoch)))
    return len(counts) > 1 and 2 * again >= len(epoch.fingerprints)


def _workers(epoch: Epoch) -> int:
    return int(epoch.begun.numbers.get("workers") or 0)


def _finding(loader: str, epoch: Epoch) -> Finding:
    workers, counts = _workers(epoch), Counter(epoch.fingerprints)
    times = counts.most_common(1)[0][1]
    return Finding(
        check=NAME,
        severity="error" if workers >= 2 else "warning",
        where=loader,
        source=epoch.begun.line,
        message=f"{len(epoch.fingerprints)} batches of an epoch are {len(counts)} different ones, repeated {times} times"
        + (f" by {workers} workers" if workers else ""),
        evidence={"batches": len(epoch.fingerprints), "different": len(counts), "workers": workers},
        notes=(
            "Let each worker take its own share (torch.utils.data.get_worker_info) and seed NumPy in worker_init_fn."
            if workers
            else "Look at the sampler: it gives the same indices again within the epoch.",
        ),
    )
