"""Planted faults of the loop's protocol: order of calls, epochs, batches, resuming."""

from __future__ import annotations

import copy

import torch

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


def scheduler_first(broken):
    def step_of(schedule):
        def step(model, batch, optimizer):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            if broken:
                schedule.step()
            optimizer.step()
            if not broken:
                schedule.step()
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
                if broken or part:
                    schedule.step() if broken else None
            optimizer.step()
            if not broken:
                schedule.step()
            return value

        return step

    return with_schedule(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100), step_of)


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
    Case("TC19b", "accelerate#2665", "optimizer of a copy", "step-without-gradient", optimizer_of_a_copy, "step()"),
    Case("L-twice", "own", "two steps per backward", "step-without-gradient", step_twice, "step()"),
    Case("R13b", "torch warns", "scheduler before optimizer", "scheduler-before-optimizer", scheduler_first, "StepLR"),
    Case(
        "R05a",
        "transformers PR#24088",
        "a schedule per micro-batch",
        "scheduler-pace",
        scheduler_per_micro_batch,
        "Cosine",
    ),
]

CASES = PROTOCOL
