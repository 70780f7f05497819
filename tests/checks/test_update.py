"""What is said of an optimizer's step, and on which healthy ones nothing is said."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import chainrule as cr
from chainrule.checks.update import (
    clip_before_unscale,
    clip_order,
    clip_without_effect,
    dry_run,
    epsilon_dominates,
    schedule_mismatch,
    schedule_shape,
    step_mismatch,
    stuck_parameters,
    update_below_rounding,
    update_formula,
    update_ratio,
)
from chainrule.checks.update.small_copy import small_copy
from chainrule.checks.update.trial import misfit, tried
from chainrule.finding import NotRun
from chainrule.update_rules import rule_of_torch
from chainrule.watch.observed import Event, Observed
from chainrule.watch.observer import Observer
from faults import own_optimizers as own
from faults.small_setups import batches, classifier, loss

JUDGES = (stuck_parameters, update_below_rounding, step_mismatch, update_ratio, epsilon_dominates)
FORMULA, RANGES = ("update-formula",), ("schedule-mismatch", "schedule-shape")


def setup_with(optimizer, **more):
    model = classifier()
    made = optimizer(model.parameters())
    return cr.Setup(model, loss, batches(), made, **more)


def reason(report):
    return report.stages[0].not_run["update-formula"].reason


def messages(report):
    return [finding.message for finding in report.findings]


def observed_run(optimizer, model=None, steps=4, before_step=lambda model: None, own_loss=loss):
    """Four real steps, observed in this process."""
    model = model or classifier()
    made = optimizer(model.parameters())
    observer = Observer([model])
    with observer.watching() as observed:
        for batch in batches(steps):
            made.zero_grad()
            own_loss(model, batch).backward()
            before_step(model)
            made.step()
    return observed


# --- update-formula ----------------------------------------------------------------------------------------------------
def test_the_report_of_a_wrong_formula_says_what_it_equals():
    report = cr.check(
        setup_with(lambda p: own.MyAdamW(p, "sign", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)),
        only=FORMULA,
    )
    (finding,) = report.findings

    assert "error" == finding.severity
    assert "MyAdamW" == finding.where
    assert "the step of MyAdamW is not that of AdamW: it equals AdamW (decay with the wrong sign)" == finding.message
    assert ("Weights grow by γλ each step where they should shrink: p - γλp.",) == finding.notes
    assert finding.source is not None
    assert finding.source.file.endswith("own_optimizers.py")
    assert "AdamW" == finding.evidence["promised"]
    assert ["your optimizer", "formula of AdamW"] == [label for label, _, _ in finding.rows]


OF_TORCH = [
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.9),
    lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.1),
    lambda p: torch.optim.Adam(p, amsgrad=True, maximize=True),
    lambda p: torch.optim.AdamW(p, fused=True),
    lambda p: torch.optim.AdamW(p, foreach=True, weight_decay=0.0),
    lambda p: torch.optim.Adafactor(p),
    lambda p: torch.optim.Muon([q for q in p if q.ndim == 2]),
]


def on_another_device(p):
    """Settings that only other devices can step with."""
    return torch.optim.Adam(p, capturable=True, lr=torch.tensor(1e-3))


@pytest.mark.parametrize("make", [*OF_TORCH, on_another_device])
def test_torchs_optimizers_are_what_they_promise(make):
    optimizer = make(list(classifier().parameters()))
    rule = rule_of_torch(type(optimizer), optimizer.param_groups[0])
    tracks = tried(optimizer, torch.Generator().manual_seed(0), decay=0.1, plain=bool(rule.resolution))

    assert misfit(rule, tracks) is None


def test_a_trial_leaves_the_optimizer_as_it_was():
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = lr_scheduler.StepLR(optimizer, 5)
    loss(model, batches()[0]).backward()
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    state = {key: value.clone() for key, value in optimizer.state[model.head.linear.weight].items()}
    tried(optimizer, torch.Generator().manual_seed(0), decay=0.1, plain=False)

    assert 0.01 == optimizer.param_groups[0]["lr"]
    assert 0 == schedule.last_epoch
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(state[key], optimizer.state[model.head.linear.weight][key]) for key in state)


def test_a_small_copy_keeps_the_attributes_of_a_class_of_ones_own():
    optimizer = own.MyAdamW(classifier().parameters(), "betas", lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    made = small_copy(optimizer, torch.Generator())

    assert "betas" == made.slip
    assert type(made) is own.MyAdamW
    assert not {id(p) for group in made.param_groups for p in group["params"]} & {
        id(p) for group in optimizer.param_groups for p in group["params"]
    }


def test_a_fault_that_the_settings_leave_without_effect_is_a_warning():
    report = cr.check(
        setup_with(lambda p: own.MyAdamW(p, "sign", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)),
        only=FORMULA,
    )

    assert ["warning"] == [finding.severity for finding in report.findings]
    assert "it makes no difference yet" in report.findings[0].notes[-1]


class Cautious(torch.optim.AdamW):
    """A formula of its own, under a name of its own."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad.sign() * p.grad.abs().sqrt(), alpha=-group["lr"])


def test_an_optimizer_with_a_name_of_its_own_promises_nothing():
    report = cr.check(setup_with(lambda p: Cautious(p, lr=1e-3)), only=FORMULA)

    assert [] == messages(report)
    assert "no formula of Cautious is known" == reason(report)


def test_what_cannot_be_tried_says_why():
    def closure_only(p):
        return torch.optim.LBFGS(p)

    assert "no formula of LBFGS is known" == reason(cr.check(setup_with(closure_only), only=FORMULA))
    model = classifier()
    none = cr.check(cr.Setup(model, loss, batches()), only=FORMULA)
    assert "no optimizer was given" == reason(none)


class OwnRate(own.Own):
    """It chooses its rate by itself, and takes three betas, as some do."""

    def update(self, p, g, state, group):
        p.sub_(0.01 * g)


def test_settings_in_another_form_are_no_claim():
    def make(p):
        return OwnRate(p, lr=None, betas=(0.9, 0.9, 0.99), eps=(1e-8, 1e-3), beta1=None)

    report = cr.check(setup_with(make), only=FORMULA)

    assert "no formula of OwnRate is known" == reason(report)
    observed = observed_run(make)
    for judge in JUDGES:
        assert isinstance(judge.judge(observed), NotRun) or [] == judge.judge(observed)


class NeedsTheModel(own.Own):
    def update(self, p, g, state, group):
        raise RuntimeError("no process group")


def test_a_class_that_cannot_step_in_a_copy_is_not_accused():
    report = cr.check(setup_with(lambda p: NeedsTheModel(p, lr=0.1, momentum=0.9)), only=FORMULA)

    assert [] == messages(report)
    assert "a copy of NeedsTheModel cannot step (RuntimeError: no process group)" == reason(report)


# --- what a step did ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", OF_TORCH)
@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.NAME)
def test_real_steps_of_torchs_optimizers_are_silent(judge, make):
    outcome = judge.judge(observed_run(lambda p: make(list(p))))

    assert isinstance(outcome, NotRun) or [] == [finding.message for finding in outcome]


def test_bfloat16_rounding_is_no_wrong_formula():
    model = classifier().bfloat16()

    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    observed = observed_run(lambda p: torch.optim.AdamW(p, lr=1e-3), model, own_loss=own_loss)

    assert [] == step_mismatch.judge(observed)
    assert ["update-below-rounding"] == [finding.check for finding in update_below_rounding.judge(observed)]


def test_a_real_step_in_bfloat16_of_a_wrong_formula_is_seen():
    class SGD(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(group["lr"] * p.grad * 1.1)

    model = classifier().bfloat16()

    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    observed = observed_run(lambda p: SGD(p, lr=50.0), model, own_loss=own_loss)

    assert isinstance(step_mismatch.judge(observed), list)


MUONS = [
    {},
    {"nesterov": False, "weight_decay": 0.0},
    {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.5, "ns_steps": 3},
]


def muon(kind=torch.optim.Muon, **settings):
    return lambda parameters: kind([p for p in parameters if p.ndim == 2], lr=0.02, **settings)


@pytest.mark.parametrize("settings", MUONS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 16])  # gradients of rank 1, 3, and as high as it goes
def test_steps_of_muon_are_silent_whatever_the_rank_of_the_gradient(rows, settings):
    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0][:rows]), batch[1][:rows])

    assert [] == step_mismatch.judge(observed_run(muon(**settings), own_loss=own_loss))


def test_steps_of_muon_in_bfloat16_are_silent():
    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    assert [] == step_mismatch.judge(observed_run(muon(), classifier().bfloat16(), own_loss=own_loss))


class ScaledMuon(torch.optim.Muon):
    """Each step is two thirds of what it should be."""

    def step(self, closure=None):
        held = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in held]
        super().step(closure)
        with torch.no_grad():
            for old, p in zip(before, held, strict=True):
                p.lerp_(old, 1 / 3)


class ClampedMuon(torch.optim.Muon):
    """Weights are held back: most of that lies in directions of which a gradient of rank 1 says nothing."""

    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.data.clamp_(-0.05, 0.05)


@pytest.mark.parametrize("kind", [ScaledMuon, ClampedMuon])
@pytest.mark.parametrize("rows", [1, 16])
def test_steps_that_are_not_those_of_muon_are_seen(rows, kind):
    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0][:rows]), batch[1][:rows])

    named_muon = type("Muon", (kind,), {})
    (finding,) = step_mismatch.judge(observed_run(muon(named_muon), own_loss=own_loss))

    assert "warning" == finding.severity
    assert finding.message.startswith("a step of Muon is not that of Muon: ")


class LowRank(nn.Module):
    """LoRA: the first matrix has exactly no gradient until the second has moved (H03)."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 4).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.zeros(4, 2))

    def forward(self, x_BD):
        return self.base(x_BD) + x_BD @ self.a.T @ self.b.T


class KeyBias(nn.Module):
    """The key's bias has a gradient of rounding noise (H01); a bias before batch norm likewise (H02)."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)

    def forward(self, x_BD):
        x_BTD = self.norm(self.linear(x_BD)).unflatten(0, (2, -1))
        return self.head(self.attention(x_BTD, x_BTD, x_BTD, need_weights=False)[0].flatten(0, 1))


def with_frozen_half():
    model = classifier()
    model.body.requires_grad_(False)
    return model


@pytest.mark.parametrize("build", [LowRank, KeyBias, with_frozen_half])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_healthy_lookalikes_are_silent(kind, build):
    torch.manual_seed(0)
    observed = observed_run(lambda p: kind([q for q in p if q.requires_grad], lr=0.01), build())

    for judge in JUDGES:
        outcome = judge.judge(observed)
        assert isinstance(outcome, NotRun) or [] == [f"{f.check} {f.where}: {f.message}" for f in outcome]


def test_a_warm_up_is_not_below_rounding():
    model = classifier().bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) / 10_000)
    observer = Observer([model])
    with observer.watching() as observed:
        for inputs, targets in batches(4):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs.bfloat16()).float(), targets).backward()
            optimizer.step()
            schedule.step()

    assert [] == update_below_rounding.judge(observed)
    assert isinstance(update_ratio.judge(observed), NotRun)


def test_the_words_for_weights_that_stand_still():
    model = classifier().bfloat16()

    def own_loss(model, batch):
        return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    (finding,) = update_below_rounding.judge(
        observed_run(lambda p: torch.optim.AdamW(p, lr=1e-7), model, own_loss=own_loss)
    )

    assert "error" == finding.severity
    assert "stand still: the step of AdamW is below the rounding of bfloat16" in finding.message
    assert "entries standing still" == finding.rows[2][0]


# --- clipping, from events written by hand -----------------------------------------------------------------------------
def events(*calls):
    """Events from (kind, numbers); a step ends an update."""
    made, update = [], 0
    for kind, numbers in calls:
        made.append(Event(kind, update, numbers.pop("who", "Adam"), None, numbers))
        update += kind == "step"
    return Observed(made, finished=True)


def clip(largest=1.0, norm=3.0, after=1.0):
    return "clip", {"how": "norm", "max": largest, "norm": norm, "after": after}


def backward(**numbers):
    return "backward", numbers


def step(norm=1.0, who="Adam"):
    return "step", {"norm": norm, "who": who, "rates": [0.1]}


def said(outcome):
    return [finding.message for finding in outcome] if isinstance(outcome, list) else outcome


def test_clipping_only_one_of_two_optimizers_is_in_order():
    observed = events(
        backward(),
        clip(),
        step(who="D"),
        backward(),
        step(who="G"),
        backward(),
        clip(),
        step(who="D"),
        backward(),
        step(who="G"),
    )

    assert [] == clip_order.judge(observed)


def test_clipping_each_micro_batch_and_at_the_end_is_in_order():
    observed = events(backward(), clip(), backward(), clip(), step(), backward(), clip(), step())

    assert [] == clip_order.judge(observed)


def test_reading_the_norm_after_the_step_is_no_clipping():
    observed = events(backward(), step(), clip(float("inf")), backward(), step(), clip(float("inf")))

    assert isinstance(clip_order.judge(observed), NotRun)


def test_clip_after_step_is_seen_at_the_second_step():
    (message,) = said(clip_order.judge(events(backward(), step(), clip(), backward(), step())))

    assert "gradients are clipped after the step that uses them" == message


def test_clip_before_unscale_needs_a_scaled_backward():
    scale = ("scale", {"scale": 65536.0, "who": "GradScaler"})
    wrong = events(scale, backward(scaled=True), clip(), ("unscale", {}), step())
    right = events(scale, backward(scaled=True), ("unscale", {}), clip(), step())
    one = events(("scale", {"scale": 1.0}), backward(scaled=True), clip(), step())

    assert ["gradients are clipped at 1 before the GradScaler's factor (65,536) is taken out"] == said(
        clip_before_unscale.judge(wrong)
    )
    assert [] == clip_before_unscale.judge(right)
    assert [] == clip_before_unscale.judge(one)


def test_clipping_by_another_norm_is_not_taken_for_a_square():
    for norm, after in ((9.0, 0.4), (2.0, 1.0), (0.5, 0.5)):
        assert [] == clip_without_effect.judge(events(backward(), clip(1.0, norm, after), step(after)))


def test_a_squared_norm_is_known_by_what_it_leaves():
    (message,) = said(clip_without_effect.judge(events(backward(), clip(1.0, 100.0, 0.1), step(0.1))))

    assert "clipping divides by the squared norm: 0.1 is left where the bound is 1" == message


def test_a_bound_that_never_acts_is_told_as_info():
    (finding,) = clip_without_effect.judge(events(*[backward(), clip(1e5, 0.1, 0.1), step(0.1)] * 3))

    assert "info" == finding.severity


# --- schedules ---------------------------------------------------------------------------------------------------------
SCHEDULES = [
    lambda o: lr_scheduler.StepLR(o, 30),
    lambda o: lr_scheduler.MultiStepLR(o, [30, 80]),
    lambda o: lr_scheduler.ConstantLR(o),
    lambda o: lr_scheduler.LinearLR(o),
    lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 100, eta_min=1e-3),
    lambda o: lr_scheduler.PolynomialLR(o, 50, 2),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 20, 2),
    lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=100),
    lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1),
    lambda o: lr_scheduler.LambdaLR(o, lambda t: min(1.0, t / 100)),
    lambda o: lr_scheduler.ReduceLROnPlateau(o),
    lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=10), lr_scheduler.CosineAnnealingLR(o, 90)], [10]
    ),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.StepLR(o, 30), lr_scheduler.ExponentialLR(o, 0.9)], [5, 60]
    ),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.ExponentialLR(o, 0.9)], [0]
    ),
]


class Given:
    """As much of a subject as these two checks look at."""

    def __init__(self, schedule, optimizer):
        self.setup = cr.Setup(None, None, [], optimizer, schedule=schedule)

    def reproduce(self, name):
        return ""


@pytest.mark.parametrize("make", SCHEDULES)
def test_torchs_schedules_are_silent(make):
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(2))]}, {"params": [nn.Parameter(torch.zeros(2))], "lr": 0.01}],
        lr=0.1,
        momentum=0.9,
    )
    schedule = make(optimizer)
    before = (schedule.state_dict() if hasattr(schedule, "last_epoch") else {}, optimizer.param_groups[0]["lr"])
    for check in (schedule_mismatch, schedule_shape):
        outcome = check.check(Given(schedule, optimizer))
        assert isinstance(outcome, NotRun) or [] == said(outcome)

    assert before == (
        schedule.state_dict() if hasattr(schedule, "last_epoch") else {},
        optimizer.param_groups[0]["lr"],
    )


def test_a_dry_run_gives_the_rates_that_come():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1.0)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)

    assert [[1.0], [0.5], [0.25]] == dry_run.rates_of(schedule, 3)
    assert 1.0 == optimizer.param_groups[0]["lr"]


def test_the_words_for_a_nested_sequence():
    from faults.update_faults import nested_first, scheduled

    (finding,) = cr.check(scheduled(nested_first, True), only=RANGES).findings

    assert "error" == finding.severity
    assert "at update 9 the rate is 0.1; by the sequence of its parts it is 0.091" == finding.message


def test_every_check_is_there_once():
    names = [check.NAME for check in (update_formula, schedule_mismatch, schedule_shape, *JUDGES, clip_order)]

    assert sorted(set(names)) == sorted(names)
