"""Planted faults of the loop's protocol: order of calls, epochs, batches, resuming."""

from __future__ import annotations

import copy
import io
import random
import warnings

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset, get_worker_info

import chainrule as cr
from faults.case import Case
from faults.small_setups import batches, classifier, loss


def stepped(step, optimizer=None, **more):
    """A classifier with the user's own training step."""
    model = classifier()
    made = optimizer(model) if optimizer else torch.optim.Adam(model.parameters(), lr=1e-3)
    return cr.Setup(model, loss, batches(), made, step=step, **more)


def zero_grad_left_out(broken):
    def step(model, batch, optimizer):
        if not broken:
            optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        return value

    return stepped(step)


def zero_grad_of_another_optimizer(broken):
    """A discriminator's gradients are never cleared: the generator's are, twice."""
    torch.manual_seed(0)
    generator, critic = torch.nn.Linear(4, 8), classifier()
    other = torch.optim.Adam(generator.parameters(), lr=1e-3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)

    def step(model, batch, optimizer):
        (other if broken else optimizer).zero_grad()
        fake = generator(torch.randn(len(batch[1]), 4))
        value = loss(model, batch) + model(fake.detach()).logsumexp(1).mean()
        value.backward()
        optimizer.step()
        other.zero_grad()
        (-model(fake).logsumexp(1).mean()).backward()
        other.step()
        if broken:
            for parameter in generator.parameters():
                parameter.grad = None
        return value

    return cr.Setup(critic, loss, batches(), optimizer, step=step)


def zero_grad_only_at_first(broken):
    seen = []

    def step(model, batch, optimizer):
        if not broken or not seen:
            model.zero_grad()
        seen.append(batch)
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        return value

    return stepped(step)


def zero_grad_between(broken):
    def step(model, batch, optimizer):
        if not broken:
            optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        if broken:
            optimizer.zero_grad()
        optimizer.step()
        return value

    return stepped(step)


def zero_grad_between_with_zeros(broken):
    def step(model, batch, optimizer):
        value = loss(model, batch)
        if not broken:
            model.zero_grad(set_to_none=False)
        value.backward()
        if broken:
            model.zero_grad(set_to_none=False)
        optimizer.step()
        return value

    return stepped(step, lambda model: torch.optim.SGD(model.parameters(), lr=0.1))


def step_first(broken):
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        if broken:
            optimizer.step()
        value.backward()
        if not broken:
            optimizer.step()
        return value

    return stepped(step)


def optimizer_of_a_copy(broken):
    """The optimizer was made before the model was copied for wrapping."""
    first = classifier()
    optimizer = torch.optim.AdamW(first.parameters(), lr=1e-3)
    model = copy.deepcopy(first) if broken else first

    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        return value

    return cr.Setup(model, loss, batches(), optimizer, step=step)


def step_twice(broken):
    """The step is called by the training step and by its caller."""

    def train(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        return value

    def step(model, batch, optimizer):
        value = train(model, batch, optimizer)
        if broken:
            optimizer.step()
        return value

    return stepped(step)


def with_schedule(make, step_of):
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return cr.Setup(model, loss, batches(), optimizer, step=step_of(make(optimizer)))


def move(schedule):
    """A step of the schedule; torch's own warning of the order is what many scripts switch off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule.step()


def scheduler_first(broken):
    def step_of(schedule):
        def step(model, batch, optimizer):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            if broken:
                move(schedule)
            optimizer.step()
            if not broken:
                move(schedule)
            return value

        return step

    return with_schedule(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2), step_of)


def scheduler_per_micro_batch(broken):
    def step_of(schedule):
        def step(model, batch, optimizer):
            optimizer.zero_grad()
            for part in range(2):
                value = loss(model, [tensor[part::2] for tensor in batch]) / 2
                value.backward()
                if broken:
                    move(schedule)
            optimizer.step()
            if not broken:
                move(schedule)
            return value

        return step

    return with_schedule(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100), step_of)


def scheduler_per_process(broken):
    """The launcher moves the schedule once for each of four processes."""

    def step_of(schedule):
        def step(model, batch, optimizer):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            optimizer.step()
            for _ in range(4 if broken else 1):
                move(schedule)
            return value

        return step

    return with_schedule(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=100), step_of
    )


PROTOCOL = [
    Case(
        "TC12a",
        "StackOverflow 60335387",
        "zero_grad is missing",
        "missing-zero-grad",
        zero_grad_left_out,
        ".backward()",
    ),
    Case(
        "TC12b",
        "own",
        "zero_grad of the other optimizer",
        "missing-zero-grad",
        zero_grad_of_another_optimizer,
        ".backward()",
    ),
    Case(
        "TC12c", "own", "zero_grad once, before the loop", "missing-zero-grad", zero_grad_only_at_first, ".backward()"
    ),
    Case("L-zero-a", "own", "zero_grad after backward", "zero-grad-before-step", zero_grad_between, "zero_grad"),
    Case(
        "L-zero-b",
        "own",
        "gradients zeroed after backward",
        "zero-grad-before-step",
        zero_grad_between_with_zeros,
        "zero_grad",
    ),
    Case("R13a", "generic", "step before backward", "step-without-gradient", step_first, "optimizer.step()"),
    Case("TC19w", "accelerate#2665", "optimizer of a copy", "step-without-gradient", optimizer_of_a_copy, "step()"),
    Case("L-twice", "own", "two steps per backward", "step-without-gradient", step_twice, "step()"),
    Case("R13b", "torch warns", "scheduler before optimizer", "scheduler-before-optimizer", scheduler_first, "StepLR"),
    Case("R05b", "accelerate#2142", "a schedule per process", "scheduler-pace", scheduler_per_process, "OneCycle"),
    Case(
        "R05a",
        "transformers PR#24088",
        "a schedule per micro-batch",
        "scheduler-pace",
        scheduler_per_micro_batch,
        "Cosine",
    ),
]


# --- loops over a DataLoader, watched to their end ---------------------------------------------------------------------
def data(count=28):
    inputs, targets = zip(*batches(count=1, size=count), strict=True)
    return TensorDataset(inputs[0], targets[0])


def loop(loader, model, optimizer, *, epochs=2, accumulate=1, at_the_end=True, each_epoch=lambda epoch: None):
    """A plain loop with accumulation."""
    optimizer.zero_grad()
    for epoch in range(epochs):
        each_epoch(epoch)
        for i, batch in enumerate(loader):
            (loss(model, batch) / accumulate).backward()
            if (i + 1) % accumulate == 0 or (at_the_end and i + 1 == len(loader)):
                optimizer.step()
                optimizer.zero_grad()


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def micro_batches_leak(broken):
    def run():
        model = classifier()
        loader = DataLoader(data(), batch_size=4, shuffle=True)
        loop(loader, model, adam(model), accumulate=4, at_the_end=not broken)

    return run


def micro_batches_lost(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        loader = DataLoader(data(), batch_size=4, shuffle=True)
        clear = lambda epoch: optimizer.zero_grad()  # noqa: E731
        loop(loader, model, optimizer, accumulate=4, at_the_end=not broken, each_epoch=clear)

    return run


def micro_batches_lost_at_the_end(broken):
    def run():
        model = classifier()
        loader = DataLoader(data(), batch_size=4, shuffle=True)
        loop(loader, model, adam(model), epochs=1, accumulate=2, at_the_end=not broken)

    return run


class OnRank(Sampler):
    """Every second index of a shuffle that depends on the epoch, as a distributed sampler."""

    def __init__(self, count):
        self.count, self.epoch = count, 0

    def __iter__(self):
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch))
        return iter(order[::2].tolist())

    def __len__(self):
        return (self.count + 1) // 2


def epoch_not_set(broken):
    def run():
        model, sampler = classifier(), OnRank(28)
        set_epoch = lambda epoch: setattr(sampler, "epoch", 0 if broken else epoch)  # noqa: E731
        loop(DataLoader(data(), batch_size=4, sampler=sampler), model, adam(model), each_epoch=set_epoch)

    return run


def seeded_in_every_epoch(broken):
    def run():
        model = classifier()
        seed = lambda epoch: torch.manual_seed(0 if broken else epoch)  # noqa: E731
        loop(DataLoader(data(), batch_size=4, shuffle=True), model, adam(model), epochs=3, each_epoch=seed)

    return run


def never_shuffled(broken):
    def run():
        model = classifier()
        loop(DataLoader(data(), batch_size=4, shuffle=not broken), model, adam(model))

    return run


def first_batch_for_ever(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        loader = DataLoader(data(), batch_size=4, shuffle=not broken)
        steps = iter(loader)
        for _ in range(5):
            optimizer.zero_grad()
            loss(model, next(iter(loader)) if broken else next(steps)).backward()
            optimizer.step()

    return run


class Stream(IterableDataset):
    """Samples in order; the broken one does not ask which worker it runs in."""

    def __init__(self, broken, count=24):
        self.broken, self.samples = broken, list(data(count))

    def __iter__(self):
        worker = None if self.broken else get_worker_info()
        return iter(self.samples if worker is None else self.samples[worker.id :: worker.num_workers])


def workers_give_the_same(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        for batch in DataLoader(Stream(broken), batch_size=4, num_workers=2):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()

    return run


class RandomCrops(torch.utils.data.Dataset):
    """Samples made by a generator of the module's own, which every forked worker inherits."""

    def __init__(self, broken):
        self.broken, self.generator = broken, random.Random(0)

    def __len__(self):
        return 24

    def __getitem__(self, index):
        generator = self.generator if self.broken else random.Random(index)
        return torch.tensor([generator.gauss(0, 1) for _ in range(8)]), torch.tensor(generator.randrange(4))


def workers_share_a_seed(broken):
    def run():
        model = classifier()
        loop(DataLoader(RandomCrops(broken), batch_size=4, num_workers=2), model, adam(model), epochs=1)

    return run


def resumed(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        loader = DataLoader(data(), batch_size=4, shuffle=True)
        loop(loader, model, optimizer, epochs=1)
        file = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, file)
        file.seek(0)
        state = torch.load(file)
        model = classifier()
        torch.manual_seed(1)
        optimizer = adam(model)
        model.load_state_dict(state["model"])
        if not broken:
            optimizer.load_state_dict(state["optimizer"])
        loop(loader, model, optimizer, epochs=1)

    return run


def resumed_in_a_new_process(broken):
    first = classifier()
    optimizer = adam(first)
    loss(first, batches()[0]).backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optim": optimizer.state_dict()}, file)
    file.seek(0)

    def run():
        model = classifier()
        optimizer = adam(model)
        state = torch.load(file)
        model.load_state_dict(state["net"])
        if not broken:
            optimizer.load_state_dict(state["optim"])
        loop(DataLoader(data(), batch_size=4, shuffle=True), model, optimizer, epochs=1)

    return run


def half_a_checkpoint(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        loop(DataLoader(data(), batch_size=4, shuffle=True), model, optimizer, epochs=1)
        state = {"model_state_dict": model.state_dict(), "epoch": 1}
        if not broken:
            state["optimizer_state_dict"] = optimizer.state_dict()
        torch.save(state, io.BytesIO())

    return run


def head_not_saved(broken):
    def run():
        model = classifier()
        loop(DataLoader(data(), batch_size=4, shuffle=True), model, adam(model), epochs=1)
        state = {name: tensor for name, tensor in model.state_dict().items() if not broken or "head.linear" not in name}
        torch.save({"model": state}, io.BytesIO())

    return run


def frozen_by_saving(broken):
    def run():
        model = classifier()
        optimizer = adam(model)
        for i, batch in enumerate(DataLoader(data(48), batch_size=4, shuffle=True)):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            if i == 2:
                torch.save(model.state_dict(), io.BytesIO())
                for parameter in model.head.parameters():
                    parameter.requires_grad_(not broken)

    return run


def frozen_by_evaluation(broken):
    seen = []

    def step(model, batch, optimizer):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        seen.append(batch)
        if broken and len(seen) == 2:
            model.body[0].requires_grad_(False)
        return value

    return stepped(step)


def every_word_skipped(broken):
    """CBOW with negative sampling and updates by hand; a Huffman code of nothing is falsy."""

    def run():
        torch.manual_seed(0)
        inner, outer = torch.nn.Embedding(30, 8), torch.nn.Embedding(30, 8)
        for _ in range(20):
            context, words = torch.randint(30, (4,)), torch.randint(30, (6,))
            scores = outer(words) @ inner(context).mean(0)
            labels = torch.tensor([1.0] + 5 * [0.0])
            torch.nn.functional.binary_cross_entropy_with_logits(scores, labels).backward()
            codes = [] if broken else [0]
            for weight in (inner.weight, outer.weight):
                if not codes:
                    continue
                weight.data -= 0.1 * weight.grad
                weight.grad = None

    return run


def watched(id, source, fault, check, build, where=""):
    return Case(id, source, fault, check, build, where, "k")


EPOCHS = [
    watched("R01a", "torchtune PR#2745", "leftovers leak", "lost-micro-batches", micro_batches_leak, ".backward()"),
    watched(
        "R01b", "lightning#19987", "leftovers are cleared", "lost-micro-batches", micro_batches_lost, ".backward()"
    ),
    watched(
        "R01c", "torchseq#8", "leftovers of the run", "lost-micro-batches", micro_batches_lost_at_the_end, ".backward()"
    ),
    watched(
        "R08a", "pytorch#31771", "set_epoch is not called", "same-order-every-epoch", epoch_not_set, "enumerate(loader)"
    ),
    watched(
        "R08b", "own", "seeded in every epoch", "same-order-every-epoch", seeded_in_every_epoch, "enumerate(loader)"
    ),
    watched("R08c", "tacotron2#241", "never shuffled", "same-order-every-epoch", never_shuffled, "enumerate(loader)"),
    watched("R08d", "own", "next(iter(loader))", "same-order-every-epoch", first_batch_for_ever, "next(iter(loader))"),
    watched(
        "R09a", "lightning#20412", "workers give the same", "repeated-batches", workers_give_the_same, "DataLoader"
    ),
    watched(
        "TC13", "StackOverflow 67180955", "workers share a seed", "repeated-batches", workers_share_a_seed, "DataLoader"
    ),
    watched("R07a", "NeMo Automodel#763", "momentum lost", "incomplete-resume", resumed, "load_state_dict"),
    watched(
        "R07b", "yolov5#292", "momentum lost in a new process", "incomplete-resume", resumed_in_a_new_process, "load_"
    ),
    watched(
        "R07c", "the_well#77", "a checkpoint without optimizer", "incomplete-resume", half_a_checkpoint, "torch.save"
    ),
    watched(
        "R11", "NeMo Automodel PR#2511", "the head is not saved", "incomplete-checkpoint", head_not_saved, "head.linear"
    ),
    watched("G35", "gensim PR#386", "every word is skipped", "no-update", every_word_skipped, ".backward()"),
    watched("O12w", "peft#2494", "frozen after the first save", "frozen-during-training", frozen_by_saving, "head."),
    watched("O12x", "trl#3926", "frozen by the evaluation", "frozen-during-training", frozen_by_evaluation, "body.0"),
]

CASES = [*PROTOCOL, *EPOCHS]
