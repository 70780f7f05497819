"""Only the rows that move are computed: the same losses, and less work."""

import pytest
import torch
from torch import nn

from chainrule.autodiff import evaluate
from chainrule.capture import capture, promote
from chainrule.compare import suffix
from chainrule.compare.lines import LossLines
from chainrule.compare.rows import Rows, moving_rows
from chainrule.compare.suffix import suffix_of
from chainrule.graph import Ref
from chainrule.models.transformer import Transformer
from chainrule.models.transformer import next_token_loss as transformer_loss
from small_models import SmallGPT, next_token_loss, token_batch
from zoo.models import OWN

T = torch.tensor([[-0.3], [0.2]], dtype=torch.float64)


def own_transformer():
    """Attention written out."""
    torch.manual_seed(0)
    model = Transformer(vocabulary=20, layers=2, heads=2, hidden=16, context=6)
    tokens, targets = token_batch(20, 2, 6)
    return model, transformer_loss, {"tokens": tokens, "targets": targets}


def fused_transformer():
    """Attention as one op, with ReLU."""
    torch.manual_seed(0)
    return SmallGPT(vocabulary=20, activation=nn.ReLU), next_token_loss, token_batch(20, 2, 6)


CASES = {"attention written out": own_transformer, "fused attention": fused_transformer}
CASES |= {
    str(model): model.build for model in OWN if str(model) in ("llama_like", "vit", "resnet", "gpt_explicit", "unet")
}


def activations(graph, base):
    """Outputs of nodes, of three dimensions or more, that are of floating point."""
    values = [(Ref(node.name), base[node.name]) for node in graph.nodes]
    return [(r, v) for r, v in values if isinstance(v, torch.Tensor) and v.is_floating_point() and v.dim() >= 3]


@pytest.mark.parametrize("case", CASES)
def test_moving_one_row_of_any_activation_gives_the_losses_of_full_evaluations(case):
    graph = promote(capture(*CASES[case]()), torch.float64)
    base = evaluate(graph)
    generator = torch.Generator().manual_seed(0)
    compared = 0
    for ref, value in activations(graph, base):
        lines = LossLines(graph, (ref,), base)
        if not lines.meeting:
            continue
        dim = value.dim() - 2
        row = int(torch.randint(value.shape[dim], (1,), generator=generator))
        direction = torch.zeros_like(value)
        part = direction.narrow(dim, row, 1)
        part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
        plain = suffix_of(graph, (ref,), base)
        expected = torch.stack([plain.loss({ref: value + t * direction}) for t in T.flatten()])

        found = lines.prepare({ref: direction[None]}).line()(T)

        torch.testing.assert_close(found.flatten(), expected, rtol=1e-12, atol=1e-13, msg=str(ref))
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("case", ["attention written out", "fused attention"])
def test_one_token_moves_itself_and_after_attention_the_later_ones(case, monkeypatch):
    graph = promote(capture(*CASES[case]()), torch.float64)
    base = evaluate(graph)
    held = {}
    real = suffix.run_rows

    def watched(node, values, many, base, at):
        output, rows = real(node, values, many, base, at)
        held[node.name] = rows
        return output, rows

    monkeypatch.setattr(suffix, "run_rows", watched)
    start = next(n for n in graph.nodes if n.op == torch.ops.aten.add.Tensor and n.module == "blocks.0")
    direction = torch.zeros(1, *base[start.name].shape, dtype=torch.float64)
    direction[0, :, 3, 5] = 1.0

    LossLines(graph, (Ref(start.name),), base).prepare({Ref(start.name): direction}).line()(T)

    of = {n.name: n for n in graph.nodes}
    linears = [(of[name].module, rows) for name, rows in held.items() if of[name].op == torch.ops.aten.linear.default]
    first = [rows for module, rows in linears if module.startswith("blocks.0")]
    assert [Rows(1, 3, 4)] * len(first) == first
    names = ("query", "key", "value")
    projections = [rows for module, rows in linears if module.startswith("blocks.1") and module.endswith(names)]
    assert [Rows(1, 3, 4)] * 3 == projections
    later = [rows for module, rows in linears if module.startswith("blocks.1") and not module.endswith(names)]
    assert [Rows(1, 3, 6)] * 3 == later


def test_the_moving_rows_are_those_of_the_dimension_in_which_they_are_fewest():
    tangents = torch.zeros(4, 2, 8, 5)
    tangents[0, 1, 3, 0] = tangents[1, 0, 4, 2] = 1.0

    assert Rows(1, 3, 5) == moving_rows(tangents)


def test_tangents_that_move_every_row_have_no_moving_rows():
    assert moving_rows(torch.ones(3, 2, 4, 5)) is None
    assert moving_rows(torch.ones(3, 5)) is None
