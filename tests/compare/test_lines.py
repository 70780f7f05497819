"""The loss along lines: prefix cache, linear region, layer-norm pencil, frozen branches."""

import pytest
import torch
from torch import nn

from chainrule.autodiff import evaluate, loss_of
from chainrule.capture import capture, promote
from chainrule.compare.lines import LossLines, graph_noise
from chainrule.compare.suffix import dependents, suffix_of
from chainrule.graph import Ref
from small_models import BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch

T = torch.tensor([-0.3, 1e-3, 0.2], dtype=torch.float64)


def gpt_graph(**settings):
    torch.manual_seed(0)
    model = SmallGPT(**settings)
    return promote(capture(model, next_token_loss, token_batch()), torch.float64)


@pytest.fixture(scope="module")
def gpt():
    graph = gpt_graph()
    return graph, evaluate(graph)


def moved_loss(graph, base, directions, t, frozen=True):
    leaves = {name: base[name] + t * direction for name, direction in directions.items()}
    return loss_of(graph, evaluate(graph, leaves, base if frozen else None))


def check_line(graph, base, names, rtol=1e-13):
    generator = torch.Generator().manual_seed(1)
    directions = {n: torch.randn(base[n].shape, generator=generator, dtype=torch.float64) for n in names}
    expected = torch.stack([moved_loss(graph, base, directions, t) for t in T])
    lines = LossLines(graph, tuple(Ref(name) for name in names), base)

    found = lines.prepare({Ref(name): d[None] for name, d in directions.items()}).line()(T)

    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


def test_the_suffix_of_a_leaf_gives_bit_for_bit_the_loss_of_a_full_evaluation(gpt):
    graph, base = gpt
    for leaf in graph.parameters.values():
        weight = base[leaf.name].clone()
        weight.view(-1)[0] += 1e-5
        suffix = suffix_of(graph, (Ref(leaf.name),), base, frozen=False)

        assert torch.equal(loss_of(graph, evaluate(graph, {leaf.name: weight})), suffix.loss({Ref(leaf.name): weight}))


def test_the_later_a_parameter_is_used_the_fewer_nodes_are_run(gpt):
    graph, _ = gpt
    names = ["embedding.weight", "blocks.0.value.weight", "blocks.1.value.weight", "head.weight"]
    counts = [len(dependents(graph, (Ref(graph.parameters[name].name),))) for name in names]

    assert sorted(counts, reverse=True) == counts
    assert counts[0] > 3 * counts[-1]


def test_a_line_in_every_parameter_equals_full_evaluations(gpt):
    graph, base = gpt
    for leaf in graph.parameters.values():
        check_line(graph, base, [leaf.name])


def test_a_line_in_all_parameters_jointly_equals_full_evaluations(gpt):
    graph, base = gpt
    check_line(graph, base, [leaf.name for leaf in graph.parameters.values()])


@pytest.mark.parametrize("width", [64, 128])
def test_the_layer_norm_pencil_equals_full_evaluations(width):
    graph = gpt_graph(width=width)
    base = evaluate(graph)
    leaf = graph.parameters["blocks.1.value.weight"]

    assert LossLines(graph, (Ref(leaf.name),), base).pencils
    check_line(graph, base, [leaf.name])


def test_the_linear_region_of_w_v_reaches_the_residual_stream(gpt):
    graph, base = gpt
    lines = LossLines(graph, (Ref(graph.parameters["blocks.0.value.weight"].name),), base)

    ops = [str(step.node.op) for step in lines.linear]
    assert "aten.scaled_dot_product_attention.default" in ops
    assert ops.count("aten.linear.default") == 2
    (meeting,) = lines.meeting
    assert graph.node(meeting.name).op == torch.ops.aten.add.Tensor


def test_the_query_has_no_linear_region_beyond_its_scores(gpt):
    graph, base = gpt
    lines = LossLines(graph, (Ref(graph.parameters["blocks.0.query.weight"].name),), base)

    assert "aten.scaled_dot_product_attention.default" not in [str(step.node.op) for step in lines.linear]


def test_lines_can_move_the_output_of_a_node(gpt):
    graph, base = gpt
    node = next(n for n in graph.nodes if n.module == "blocks.1.value")
    direction = torch.randn(base[node.name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    suffix = suffix_of(graph, (Ref(node.name),), base)
    expected = torch.stack([suffix.loss({Ref(node.name): base[node.name] + t * direction}) for t in T])

    lines = LossLines(graph, (Ref(node.name),), base).prepare({Ref(node.name): direction[None]})

    torch.testing.assert_close(lines.line()(T), expected, rtol=1e-13, atol=0)


def test_a_mix_of_basis_directions_is_their_combination(gpt):
    graph, base = gpt
    name = graph.parameters["blocks.0.value.weight"].name
    basis = torch.randn(3, *base[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mix = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)
    lines = LossLines(graph, (Ref(name),), base)
    offsets = T[:, None].expand(3, 2)

    combined = lines.prepare({Ref(name): torch.einsum("kc,coi->koi", mix, basis)}).line()(offsets)

    torch.testing.assert_close(lines.prepare({Ref(name): basis}).line(mix)(offsets), combined, rtol=1e-13, atol=0)


def test_frozen_branches_make_the_loss_smooth_where_the_plain_one_has_kinks():
    graph = gpt_graph(activation=nn.ReLU)
    base = evaluate(graph)
    name = graph.parameters["blocks.0.up.weight"].name
    direction = torch.randn(1, *base[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.arange(-6, 7, dtype=torch.float64) * 0.02

    def roughness(frozen: bool) -> float:
        losses = LossLines(graph, (Ref(name),), base, frozen=frozen).prepare({Ref(name): direction}).line()(t)
        return float(losses.diff(n=9).abs().max())

    assert roughness(frozen=False) > 100 * roughness(frozen=True)


def test_a_batch_norm_network_in_training_mode_can_be_batched():
    torch.manual_seed(0)
    batch = torch.randn(6, 3, 8, 8), torch.randint(0, 5, (6,))
    graph = promote(capture(BatchNormCNN(), class_loss, batch), torch.float64)
    base = evaluate(graph)
    for leaf in graph.parameters.values():
        check_line(graph, base, [leaf.name])


def test_what_stands_behind_detach_does_not_move():
    class Straight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.weight + (x * self.weight).detach() ** 2

    graph = capture(Straight().double(), lambda m, x: m(x).sum(), torch.ones(3, dtype=torch.float64))
    base = evaluate(graph)
    name = graph.parameters["weight"].name
    line = LossLines(graph, (Ref(name),), base).prepare({Ref(name): torch.ones(1, 3, dtype=torch.float64)}).line()

    assert [6.0, 9.0] == line(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()


def test_the_noise_of_a_small_transformer_is_some_units_of_rounding(gpt):
    graph, base = gpt
    noise, evaluations = graph_noise(graph, base)

    assert 1e-17 < noise < 1e-14
    assert evaluations >= 9
