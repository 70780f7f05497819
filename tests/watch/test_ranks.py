"""What ranks leave for each other, and how two ranks' calls and tensors are compared."""

import json

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from chainrule.finding import Line
from chainrule.watch.collectives import described, disagreement
from chainrule.watch.names import inner, unreplicated
from chainrule.watch.prints import print_of
from chainrule.watch.ranks import Ranks
from chainrule.watch.replica import Replica
from chainrule.watch.wrappers import Wrappers, accumulator


@pytest.fixture
def alone(tmp_path):
    """A process group of this process only."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_process_by_itself_is_not_several():
    assert not Ranks().several


@pytest.mark.usefixtures("alone")
def test_a_world_of_one_is_not_several():
    assert not Ranks().several


def test_the_first_who_asks_tells_where_there_is_only_one():
    assert [True, True] == [Ranks().first("told") for _ in range(2)]


def test_a_print_is_the_same_for_the_same_bits_only():
    tensor = torch.tensor([1.0, 2.0, 3.0])
    moved = tensor.clone()
    moved[1] = torch.nextafter(moved[1], torch.tensor(9.0))

    assert print_of(tensor) == print_of(tensor[[0, 1, 2]])
    assert print_of(tensor) != print_of(moved)
    assert print_of(tensor) != print_of(tensor[[2, 1, 0]])
    assert print_of(torch.zeros(2)) != print_of(torch.zeros(2).bfloat16())


def test_a_replica_comes_back_from_json():
    replica = Replica(
        optimizer="SGD",
        number=3,
        before={"w": "a"},
        gradients={"w": "b"},
        after={"w": "c"},
        constant=("w",),
        norms={"w": 0.5},
        entries={"w": (1.0,)},
        settings="lr",
        calls={"clip": 1},
        batches=("f",),
        detached=(),
        wrapped=True,
        hooked=False,
        forwards=2,
        averaged=("w",),
        line=Line("train.py", 3, "step()"),
    )

    assert json.loads(json.dumps(replica.to_json())) == json.loads(
        json.dumps(Replica.from_json(json.loads(json.dumps(replica.to_json()))).to_json())
    )
    assert replica.line == Replica.from_json(json.loads(json.dumps(replica.to_json()))).line


def call(name, **given):
    return described(1, name, given, None)


@pytest.mark.usefixtures("alone")
def test_calls_that_fit_do_not_disagree():
    ones = torch.ones(3)

    assert "" == disagreement(call("all_reduce", tensor=ones), call("all_reduce", tensor=2 * ones), (0, 1))
    assert "" == disagreement(call("barrier"), call("barrier"), (0, 1))


@pytest.mark.usefixtures("alone")
def test_calls_of_another_kind_size_or_dtype_disagree():
    ones = torch.ones(3)
    reduce = call("all_reduce", tensor=ones)

    assert "rank 0 calls all_reduce where rank 1 calls barrier" == disagreement(reduce, call("barrier"), (0, 1))
    assert "all_reduce: entries 3 on rank 0, 4 on rank 1" == disagreement(
        reduce, call("all_reduce", tensor=torch.ones(4)), (0, 1)
    )
    assert "all_reduce: dtype float32 on rank 0, float64 on rank 1" == disagreement(
        reduce, call("all_reduce", tensor=ones.double()), (0, 1)
    )


@pytest.mark.usefixtures("alone")
def test_an_all_to_all_must_take_what_it_is_given():
    def exchange(takes, gives):
        return call(
            "all_to_all_single",
            output=torch.ones(sum(takes), 2),
            input=torch.ones(sum(gives), 2),
            output_split_sizes=takes,
            input_split_sizes=gives,
        )

    assert "" == disagreement(exchange([3, 6], [3, 5]), exchange([5, 2], [6, 2]), (0, 1))
    assert "all_to_all_single: rank 1 gives 12 entries to rank 0, which takes 10 from it" == disagreement(
        exchange([3, 5], [3, 5]), exchange([5, 2], [6, 2]), (0, 1)
    )


@pytest.mark.usefixtures("alone")
def test_a_conversion_after_wrapping_detaches_and_one_before_does_not():
    wrappers = Wrappers()
    with wrappers.followed():
        ddp = DistributedDataParallel(nn.Linear(2, 2).double().float())
    held = {name: (0, parameter) for name, parameter in ddp.module.named_parameters()}

    assert () == wrappers.hold(held).detached
    ddp.double()
    ddp.float()
    assert ("weight", "bias") == wrappers.hold(held).detached


@pytest.mark.usefixtures("alone")
def test_the_calls_of_a_wrapper_are_counted_between_two_steps():
    wrappers = Wrappers()
    with wrappers.followed():
        ddp = DistributedDataParallel(nn.Linear(2, 2))
        held = {name: (0, parameter) for name, parameter in ddp.module.named_parameters()}
        ddp(torch.ones(1, 2))
        assert 1 == wrappers.hold(held).forwards
        ddp.module(torch.ones(1, 2))
        assert 0 == wrappers.hold(held).forwards


@pytest.mark.usefixtures("alone")
def test_what_wrappers_hold_is_found():
    model = nn.Linear(2, 2)
    ddp = DistributedDataParallel(model)

    assert model is unreplicated(ddp)
    assert model is inner(ddp)
    assert model is inner(model)


def test_the_node_of_a_parameter_is_one_object():
    parameter = nn.Parameter(torch.ones(2))
    node = accumulator(parameter)

    assert accumulator(parameter) is node
