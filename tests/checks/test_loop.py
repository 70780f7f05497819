"""What is said of the order of calls in a loop, and of which odd but healthy loops nothing is said."""

import contextlib

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import chainrule as cr
from chainrule.checks.loop import (
    JUDGES,
    incomplete_checkpoint,
    incomplete_resume,
    lost_micro_batches,
    missing_zero_grad,
    no_update,
    repeated_batches,
    same_order_every_epoch,
    scheduler_before_optimizer,
    scheduler_pace,
    step_without_gradient,
    zero_grad_before_step,
)
from chainrule.checks.loop.timeline import windows
from chainrule.finding import NotRun
from chainrule.watch.observed import Event, Observed
from chainrule.watch.observer import Observer
from faults.loop_faults import zero_grad_left_out
from faults.small_setups import batches, classifier, loss


def observed_by(*calls, rehearsal=False, finished=True):
    """Events from (kind, who, numbers); a step ends an update."""
    made, update = [], 0
    for kind, who, numbers in calls:
        made.append(Event(kind, update, who, None, numbers))
        update += kind == "step"
    return Observed(made, finished=finished, rehearsal=rehearsal)


def backward(held=None):
    return "backward", "", {"held": held, "loss": 1.0}


def step(who="Adam", norm=1.0, empty=False, **numbers):
    return "step", who, {"norm": None if empty else norm, "empty": empty, "rates": [0.1], **numbers}


def zero_grad(who="Adam", cleared=1.0):
    return "zero_grad", who, {"cleared": cleared}


def schedule(who="Adam", kind="StepLR"):
    return "schedule", who, {"rates": [0.1], "scheduler": kind}


def epoch(who="DataLoader", **numbers):
    return "epoch", who, {"length": 4, "workers": 0, "shuffled": True, **numbers}


def batch(fingerprint="a", who="DataLoader", size=4):
    return "batch", who, {"fingerprint": fingerprint, "size": size}


def said(outcome):
    assert isinstance(outcome, list), outcome
    return [finding.message for finding in outcome]


def silent(outcome):
    return isinstance(outcome, NotRun) or not outcome


# --- real loops that are odd and healthy -------------------------------------------------------------------------------
def run(loop):
    """What a loop was seen to do."""
    observer = Observer()
    with observer.watching() as observed:
        loop()
        observed.finished = True
    return observed


def plain():
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters())
    for x in batches(6):
        loss(model, x).backward()
        optimizer.step()
        optimizer.zero_grad()


def gan():
    """The generator's backward fills the critic's gradients, which are cleared before the critic's own (H06)."""
    generator, critic = nn.Linear(4, 8), classifier()
    g, d = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    for x in batches(6):
        fake = generator(torch.randn(8, 4))
        d.zero_grad()
        (loss(critic, x) + critic(fake).mean()).backward(retain_graph=True)
        d.step()
        g.zero_grad()
        (-critic(generator(torch.randn(8, 4))).mean()).backward()
        g.step()


def cleared_by_hand():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches(6):
        for p in model.parameters():
            p.grad = None
        loss(model, x).backward()
        optimizer.step()


def adversarial():
    """A first backward only for the gradient of the input, cleared before the one that trains."""
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in batches(6):
        x = inputs.clone().requires_grad_()
        loss(model, (x, targets)).backward()
        model.zero_grad()
        loss(model, (inputs + 0.1 * x.grad.sign(), targets)).backward()
        optimizer.step()


def accumulated():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters())
    loader = DataLoader(TensorDataset(*batches(1, 32)[0]), batch_size=4, shuffle=True)
    for _ in range(2):
        for i, x in enumerate(loader):
            (loss(model, x) / 4).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()


def scaled():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for x in batches(6):
        optimizer.zero_grad()
        scaler.scale(loss(model, x)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


def closures():
    model = classifier()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    for x in batches(4):

        def closure(x=x):
            optimizer.zero_grad()
            value = loss(model, x)
            value.backward()
            return value

        optimizer.step(closure)


def with_validation():
    """The same validation batches after every epoch, in order, from a loader of their own."""
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters())
    data = TensorDataset(*batches(1, 32)[0])
    train, test = DataLoader(data, batch_size=4, shuffle=True), DataLoader(data, batch_size=4)
    for _ in range(2):
        for x in train:
            optimizer.zero_grad()
            loss(model, x).backward()
            optimizer.step()
        with torch.no_grad():
            for x in test:
                loss(model, x)


def sharpness_aware():
    """Two backwards per update, and a step into the neighbourhood by hand in between."""
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches(6):
        optimizer.zero_grad()
        loss(model, x).backward()
        moved = [0.05 * p.grad.sign() for p in model.parameters()]
        with torch.no_grad():
            for p, move in zip(model.parameters(), moved, strict=True):
                p.add_(move)
        optimizer.zero_grad()
        loss(model, x).backward()
        with torch.no_grad():
            for p, move in zip(model.parameters(), moved, strict=True):
                p.sub_(move)
        optimizer.step()


def two_groups_of_parameters():
    """Two optimizers share one backward."""
    model = classifier()
    first = torch.optim.SGD(model.body.parameters(), lr=0.1)
    second = torch.optim.Adam(model.head.parameters())
    for x in batches(6):
        first.zero_grad()
        second.zero_grad()
        loss(model, x).backward()
        first.step()
        second.step()


LOOPS = [
    plain,
    gan,
    cleared_by_hand,
    adversarial,
    accumulated,
    scaled,
    closures,
    with_validation,
    sharpness_aware,
    two_groups_of_parameters,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_an_odd_but_healthy_loop_is_silent(loop):
    observed = run(loop)

    assert observed.updates >= 4
    for judge in JUDGES:
        assert silent(judge.judge(observed)), judge.NAME


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.NAME)
def test_a_loop_of_which_nothing_was_seen_is_not_judged(judge):
    assert isinstance(judge.judge(Observed()), NotRun)


def test_the_report_of_a_missing_zero_grad():
    (finding,) = cr.check(zero_grad_left_out(True), only=("missing-zero-grad",)).findings

    assert "error" == finding.severity
    assert "Adam" == finding.where
    assert "gradients are not cleared between steps: each backward adds to those of all steps before" == finding.message
    assert "value.backward()" == finding.source.code
    assert ["gradient norm at step 1", "held before the next backward"] == [label for label, _, _ in finding.rows]
    assert ("Call zero_grad of Adam once per update, before backward or after step.",) == finding.notes


# --- from events written by hand ---------------------------------------------------------------------------------------
def test_windows_over_forgotten_events_are_left_out():
    observed = observed_by(*[event for _ in range(5) for event in (backward(), step())])
    del observed.events[4:8]  # the third and the fourth update

    assert [0, 1] == [window.step.update for window in windows(observed)]


def test_gradients_of_another_optimizer_are_not_taken_for_held_ones():
    observed = observed_by(
        zero_grad("D"),
        backward(0.0),
        step("D"),
        zero_grad("G"),
        backward(1.0),
        step("G"),
        zero_grad("D"),
        backward(1.0),
        step("D"),
    )

    assert [] == missing_zero_grad.judge(observed)


def test_zero_grad_before_step_names_the_optimizer():
    observed = observed_by(backward(), zero_grad(), step(empty=True), backward(), zero_grad(), step(empty=True))

    assert ["gradients are cleared after backward and before the step, which then finds none"] == said(
        zero_grad_before_step.judge(observed)
    )


def test_a_single_step_before_the_loop_only_quietens_a_scheduler():
    loop = [event for _ in range(3) for event in (zero_grad(), backward(0.0), step())]

    assert [] == step_without_gradient.judge(observed_by(step(empty=True), *loop))


def test_a_loop_of_gradients_made_by_hand_is_not_judged():
    assert isinstance(step_without_gradient.judge(observed_by(step(), step(), step())), NotRun)


def test_a_skipped_step_lets_the_schedule_go_on():
    calls = (backward(), step(skipped=True), schedule(), backward(), step(), schedule())

    assert [] == scheduler_before_optimizer.judge(observed_by(*calls))


def test_a_schedule_brought_to_where_a_run_stopped_is_in_order():
    calls = (schedule(), schedule(), schedule(), backward(), step(), schedule())

    assert [] == scheduler_before_optimizer.judge(observed_by(*calls))


def test_two_schedules_of_different_kinds_move_once_each():
    update = (backward(), step(), schedule(kind="LinearLR"), schedule(kind="StepLR"))

    assert [] == scheduler_pace.judge(observed_by(*(event for _ in range(4) for event in update)))


def test_leftovers_that_get_their_own_step_are_not_lost():
    calls = [epoch()]
    for group in (2, 2, 1):
        calls += [event for _ in range(group) for event in (batch(), backward())] + [step(), zero_grad()]

    assert [] == lost_micro_batches.judge(observed_by(*calls))


def test_an_order_that_changes_is_fine_and_one_that_does_not_is_a_warning():
    def epochs(*orders):
        return observed_by(
            *(e for order in orders for e in (epoch(), *(c for f in order for c in (batch(f), backward(), step()))))
        )

    assert [] == same_order_every_epoch.judge(epochs("abcd", "bacd"))
    assert isinstance(same_order_every_epoch.judge(epochs("ab", "ab")), NotRun)
    assert [] == same_order_every_epoch.judge(epochs("aaaa", "aaaa"))
    (finding,) = same_order_every_epoch.judge(epochs("abcd", "abcd"))
    assert "warning" == finding.severity


def test_constant_data_are_no_repeated_batches():
    def one(order, workers):
        return observed_by(epoch(workers=workers), *(c for f in order for c in (batch(f), backward(), step())))

    assert [] == repeated_batches.judge(one("aaaaaa", 2))
    assert [] == repeated_batches.judge(one("abcdab", 3))
    assert ["8 batches of an epoch are 4 different ones, repeated 2 times by 2 workers"] == said(
        repeated_batches.judge(one("abcdabcd", 2))
    )


def load(what, who="", keys=None):
    return "load", who, {"what": what, "keys": keys or []}


def save(*keys):
    return "save", "", {"what": "file", "keys": list(keys)}


def test_pretrained_weights_are_no_resume():
    calls = (
        load("file", keys=["encoder.weight", "encoder.bias"]),
        load("model", "Net"),
        zero_grad(),
        backward(),
        step(),
    )

    assert [] == incomplete_resume.judge(observed_by(*calls))


def test_a_whole_resume_is_in_order():
    file = load("file", keys=["model", "optimizer", "epoch"])
    calls = (file, load("model", "Net"), load("optimizer", "Adam"), zero_grad(), backward(), step())

    assert [] == incomplete_resume.judge(observed_by(*calls))


def test_a_resume_without_the_optimizer_is_told():
    file = load("file", keys=["model", "optimizer", "epoch"])

    assert ["the model is loaded and Adam goes on without the state that it had"] == said(
        incomplete_resume.judge(observed_by(file, load("model", "Net"), zero_grad(), backward(), step()))
    )


def test_saved_weights_alone_are_no_half_a_checkpoint():
    assert [] == incomplete_resume.judge(observed_by(backward(), step(), save("body.weight", "body.bias")))
    assert [] == incomplete_resume.judge(observed_by(backward(), step(), save("model", "config")))


def test_an_adapter_saved_alone_is_no_incomplete_checkpoint():
    def loop():
        model = classifier()
        optimizer = torch.optim.Adam(model.head.parameters())
        for x in batches(3):
            optimizer.zero_grad()
            loss(model, x).backward()
            optimizer.step()
        torch.save(model.head.state_dict(), "/dev/null")
        torch.save({name: t for name, t in model.state_dict().items() if "head" in name}, "/dev/null")

    assert [] == incomplete_checkpoint.judge(run(loop))


def test_a_step_that_raised_and_was_caught_does_not_end_the_watch():
    class Once(torch.optim.SGD):
        refused = False

        def step(self, closure=None):
            if not self.refused:
                self.refused = True
                raise RuntimeError("not yet")
            return super().step(closure)

    model = torch.nn.Linear(2, 2)
    optimizer = Once(model.parameters(), lr=0.1)
    observer = Observer([model])
    with observer.watching() as observed:
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            with contextlib.suppress(RuntimeError):
                optimizer.step()

    assert 3 == observed.updates
    assert [1, 2, 3] == [step.number for step in observed.steps]


def test_a_loop_that_only_measures_a_few_gradients_is_silent():
    model = torch.nn.Linear(2, 2)
    observer = Observer([model])
    with observer.watching() as observed:
        for _ in range(9):
            model(torch.ones(1, 2)).sum().backward()

    assert "fewer than ten backward calls were seen" == no_update.judge(observed).reason
