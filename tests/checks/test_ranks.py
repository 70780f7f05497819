"""What is said of ranks that part, and of which ranks nothing is said."""

from dataclasses import replace

import pytest

from chainrule.checks.ranks import collective_mismatch, detached_ddp, replica_drift, same_batch_on_ranks
from chainrule.finding import NotRun
from chainrule.watch.observed import Observed
from chainrule.watch.replica import Disagreement, Replica

SAME = Replica(
    optimizer="SGD",
    number=1,
    before={"w": "0", "norm": "1"},
    gradients={"w": "g", "norm": "h"},
    after={"w": "2", "norm": "3"},
    constant=("norm",),
    norms={"w": 0.5, "norm": 0.1},
    entries={"w": (1.0,), "norm": (1.0,)},
    settings="lr 0.1",
    calls={"backward": 1},
    batches=("a",),
    detached=(),
    wrapped=True,
    hooked=False,
    forwards=1,
    averaged=(),
    line=None,
)
PARTED = replace(SAME, gradients={"w": "x", "norm": "y"}, after={"w": "5", "norm": "6"})


def said(check, *looks):
    outcome = check.judge(Observed(replicas=list(looks)))
    return outcome if isinstance(outcome, NotRun) else [(f.severity, f.message) for f in outcome]


def notes(*look):
    (finding,) = replica_drift.judge(Observed(replicas=[look]))
    return finding.notes[0]


def test_one_process_has_no_ranks():
    assert isinstance(said(replica_drift), NotRun)
    assert isinstance(said(detached_ddp), NotRun)
    assert isinstance(said(same_batch_on_ranks), NotRun)
    assert isinstance(said(collective_mismatch), NotRun)


def test_ranks_that_stay_together_are_silent():
    assert [] == said(replica_drift, (SAME, SAME))


def test_ranks_that_part_under_ddp_are_an_error():
    assert [("error", "the ranks part in step 1: 2 of 2 parameters of SGD differ after it, w, norm")] == said(
        replica_drift, (SAME, PARTED)
    )


def test_ranks_that_nothing_averages_are_a_warning():
    alone = (replace(SAME, wrapped=False), replace(PARTED, wrapped=False))

    assert ["warning"] == [severity for severity, _ in said(replica_drift, alone)]


def test_a_hook_of_the_users_may_average_later():
    hooked = (replace(SAME, hooked=True), replace(PARTED, hooked=True))

    assert ["warning"] == [severity for severity, _ in said(replica_drift, hooked)]


def test_shards_of_one_model_are_silent():
    shard = replace(PARTED, before={"w": "9", "norm": "1"}, wrapped=False)

    assert [] == said(replica_drift, (SAME, shard))


def test_stages_of_a_pipeline_are_silent():
    stage = replace(PARTED, **{name: {"other": "1"} for name in ("before", "gradients", "after")}, constant=())

    assert [] == said(replica_drift, (SAME, stage))


def test_shards_of_constant_tensors_alone_say_nothing():
    ones = replace(SAME, constant=("w", "norm"))

    assert [] == said(replica_drift, (ones, replace(PARTED, constant=("w", "norm"))))


def test_the_same_gradients_at_different_parameters_are_an_error():
    other = replace(SAME, before={"w": "7", "norm": "1"}, after={"w": "8", "norm": "3"})

    assert [
        (
            "error",
            "the ranks take the same gradients to different parameters: 1 of 2 of SGD differ before step 1, w",
        )
    ] == said(replica_drift, (SAME, other))


@pytest.mark.parametrize(
    ("other", "note"),
    [
        (replace(PARTED, gradients=SAME.gradients), "The gradients are the same, the updates are not."),
        (
            replace(PARTED, gradients=SAME.gradients, settings="lr 0.2"),
            "The gradients are the same, the optimizer's settings are not.",
        ),
        (replace(PARTED, calls={"backward": 1, "clip": 1}), "Calls of clip since the last step: 0, 1."),
        (
            PARTED,
            "DistributedDataParallel did not average these gradients, or they were changed afterwards.",
        ),
    ],
)
def test_the_cause_is_named(other, note):
    assert note == notes(SAME, other)


def test_a_wrapper_that_was_not_called_is_named():
    first, second = (replace(replica, forwards=0) for replica in (SAME, PARTED))

    assert "The module inside of DistributedDataParallel was called, not the wrapper: nothing averages." == notes(
        first, second
    )


def test_detached_parameters_are_said_once_and_not_as_a_drift():
    lost = (replace(SAME, detached=("w",)), replace(PARTED, detached=("w",)))

    assert [
        (
            "error",
            "DistributedDataParallel no longer averages 1 of 2 parameters, w: "
            "they were converted or moved after it was made",
        )
    ] == said(detached_ddp, lost, lost)
    assert [] == said(replica_drift, lost)


def test_the_same_batches_on_all_ranks_are_a_warning_if_they_differ_from_step_to_step():
    first, second = (SAME, SAME), (replace(SAME, batches=("b",)),) * 2

    assert [("warning", "all 2 ranks train on the same batches")] == said(same_batch_on_ranks, first, second)
    assert [] == said(same_batch_on_ranks, first, first)  # the whole data set in each step


def test_ranks_with_batches_of_their_own_are_silent():
    look = (SAME, replace(SAME, batches=("z",)))

    assert [] == said(same_batch_on_ranks, look, look)


def test_calls_that_do_not_fit_are_an_error():
    observed = Observed(
        disagreements=[Disagreement("all_reduce", "all_reduce: entries 3 on rank 0, 4 on rank 1", None, (0, 1))]
    )

    assert [("error", "the ranks' calls do not fit: all_reduce: entries 3 on rank 0, 4 on rank 1")] == [
        (finding.severity, finding.message) for finding in collective_mismatch.judge(observed)
    ]
