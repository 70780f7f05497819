"""Planted faults of distributed training, in two processes that talk over gloo: replicas that part, calls that do not fit.

The processes are forked, so that a case takes a second or two.
"""

from __future__ import annotations

import contextlib
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from faults.case import Case
from faults.loop_faults import adam, data, loop
from faults.small_setups import batches, classifier, loss

WORLD = 2


def on_ranks(train, patience=300):
    """The builder of a loop in which each of two processes calls train(rank, broken)."""

    def build(broken):
        def run():
            with tempfile.TemporaryDirectory() as folder:
                arguments = train, broken, Path(folder, "store"), patience
                with contextlib.suppress(ProcessRaisedException, ProcessExitedException):  # a hang that its time ended
                    start_processes(process, arguments, nprocs=WORLD, start_method="fork")

        return run

    return build


def process(rank, train, broken, store, patience):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=patience)
    )
    train(rank, broken)
    distributed.destroy_process_group()


def of_rank(rank, count=4):
    """Batches of its own for each rank."""
    return batches(count * WORLD)[rank::WORLD]


def steps(model, optimizer, parts, *, before_step=lambda: None):
    for batch in parts:
        optimizer.zero_grad()
        loss(model, batch).backward()
        before_step()
        optimizer.step()


def average(model):
    for parameter in model.parameters():
        distributed.all_reduce(parameter.grad)
        parameter.grad /= WORLD


def clipped_on_one_rank(rank, broken):
    model = classifier()

    def then():
        average(model)
        if rank == 0 or not broken:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    steps(model, torch.optim.SGD(model.parameters(), lr=0.1), of_rank(rank), before_step=then)


def inconsistent_counts(rank, broken):
    """Tokens go to experts on both ranks; the broken one takes as many as it gives."""
    model = classifier()
    optimizer = adam(model)
    gives = ([3, 5], [6, 2])[rank]
    takes = gives if broken else ([3, 6], [5, 2])[rank]
    for inputs, _ in of_rank(rank):
        routed = torch.empty(sum(takes), inputs.shape[1])
        distributed.all_to_all_single(routed, inputs, takes, gives)
        optimizer.zero_grad()
        model(routed).logsumexp(1).mean().backward()
        average(model)
        optimizer.step()


def converted_after_wrapping(rank, broken):
    model = classifier()
    if not broken:
        model.double().float()
    ddp = DistributedDataParallel(model)
    if broken:
        ddp.double()
        ddp.float()
    steps(ddp, adam(ddp), of_rank(rank))


def wrapper_not_called(rank, broken):
    model = classifier()
    ddp = DistributedDataParallel(model)
    steps(model if broken else ddp, adam(ddp), of_rank(rank))


def never_wrapped(rank, broken):
    """Launched on two ranks, and nothing averages."""
    model = classifier()
    steps(model if broken else DistributedDataParallel(model), adam(model), of_rank(rank))


def another_seed_on_each_rank(rank, broken):
    model = classifier()
    if broken:
        torch.manual_seed(rank)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
    steps(model, adam(model), of_rank(rank), before_step=lambda: average(model))


def added_after_averaging(rank, broken):
    """The last micro-batch under no_sync, the others not."""
    model = DistributedDataParallel(classifier())
    optimizer = adam(model)
    for first, last in zip(of_rank(rank), of_rank(rank, 8)[4:], strict=True):
        optimizer.zero_grad()
        if broken:
            loss(model, first).backward()
            with model.no_sync():
                loss(model, last).backward()
        else:
            with model.no_sync():
                loss(model, first).backward()
            loss(model, last).backward()
        optimizer.step()


def lossy_reduce(rank, broken):
    """A link that loses what one rank should get."""

    def reduce(state, bucket):
        future = distributed.all_reduce(bucket.buffer().div_(WORLD), async_op=True).get_future()
        return future.then(lambda done: done.value()[0] * (0 if broken and rank == 1 else 1))

    model = DistributedDataParallel(classifier())
    model.register_comm_hook(None, reduce)
    steps(model, adam(model), of_rank(rank))


def another_rate_on_one_rank(rank, broken):
    model = DistributedDataParallel(classifier())
    steps(model, torch.optim.SGD(model.parameters(), lr=0.1 if rank or not broken else 0.2), of_rank(rank))


def no_distributed_sampler(rank, broken):
    model = DistributedDataParallel(classifier())
    torch.manual_seed(0)
    sampler = None if broken else DistributedSampler(data())
    loop(DataLoader(data(), batch_size=4, shuffle=broken, sampler=sampler), model, adam(model), epochs=1)


def epoch_not_set(broken):
    """The sampler of rank 0 of two, in one process."""

    def run():
        model, sampler = classifier(), DistributedSampler(data(), num_replicas=2, rank=0)
        set_epoch = lambda epoch: None if broken else sampler.set_epoch(epoch)  # noqa: E731
        loop(DataLoader(data(), batch_size=4, sampler=sampler), model, adam(model), each_epoch=set_epoch)

    return run


def watched(id, source, fault, check, build, where):
    return Case(id, source, fault, check, build, where, "k")


DRIFT = [
    ("TC04", "DeepSpeed PR#1801", "clipped on rank 0 only", clipped_on_one_rank, "optimizer.step()"),
    ("TC18", "jxmnop 1778520637193240892", "the module is called, not its DDP wrapper", wrapper_not_called, "step()"),
    ("TC18b", "generic", "launched on two ranks, never wrapped", never_wrapped, "optimizer.step()"),
    ("D11", "generic", "another seed on each rank", another_seed_on_each_rank, "optimizer.step()"),
    ("D06", "DeepSpeed PR#7985", "last micro-batch added after averaging", added_after_averaging, "optimizer.step()"),
    ("TC01", "Baichuan2#86", "a link loses what one rank should get", lossy_reduce, "optimizer.step()"),
    ("TC04b", "own", "another rate on one rank", another_rate_on_one_rank, "optimizer.step()"),
]

CASES = [
    *(watched(id, source, fault, "replica-drift", on_ranks(train), where) for id, source, fault, train, where in DRIFT),
    watched(
        "TC09",
        "pytorch#104336",
        "converted after DDP wrapped it",
        "detached-ddp",
        on_ranks(converted_after_wrapping),
        "step()",
    ),
    watched(
        "TC05",
        "DeepSpeed#5794",
        "all_to_all with counts that do not fit",
        "collective-mismatch",
        on_ranks(inconsistent_counts),
        "all_to_all_single(",
    ),
    watched(
        "R08f",
        "transformers#3721",
        "no DistributedSampler",
        "same-batch-on-ranks",
        on_ranks(no_distributed_sampler),
        "optimizer.step()",
    ),
    watched(
        "R08e",
        "pytorch#31771",
        "DistributedSampler without set_epoch",
        "same-order-every-epoch",
        epoch_not_set,
        "enumerate(loader)",
    ),
]
