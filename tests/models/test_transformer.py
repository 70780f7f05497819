"""The Transformer: its parts by their names, its initialisation, causality, and its formula beside torch's own."""

import math

import pytest
import torch
from torch.nn import functional as F

from chainrule.models import Transformer, next_token_loss
from chainrule.models.attention import Sight
from chainrule.models.masks import future


def make(**changes):
    sizes = {"vocabulary": 11, "layers": 2, "heads": 2, "hidden": 8, "context": 6} | changes
    return Transformer(**sizes, generator=torch.Generator().manual_seed(0))


def test_modules_have_the_names_that_reports_use():
    names = [name for name, _ in make(layers=1, tied=False).named_parameters() if name.endswith("weight")]

    assert [
        "tokens.weight",
        "positions.weight",
        "blocks.0.attention_norm.weight",
        "blocks.0.attention.query.weight",
        "blocks.0.attention.key.weight",
        "blocks.0.attention.value.weight",
        "blocks.0.attention.output.weight",
        "blocks.0.mlp_norm.weight",
        "blocks.0.mlp.expand.weight",
        "blocks.0.mlp.contract.weight",
        "norm.weight",
        "head.weight",
    ] == names


def test_a_tied_head_is_the_embedding_and_counts_once():
    tied, free = make(), make(tied=False)

    assert tied.head.weight is tied.tokens.weight
    assert 11 * 8 == sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters())


def test_initial_weights_have_gpt2s_standard_deviations():
    model = make(hidden=128, vocabulary=500, layers=8)
    block = model.blocks[3]

    assert 0.02 == pytest.approx(model.tokens.weight.std().item(), rel=0.02)
    assert 0.02 == pytest.approx(block.attention.query.weight.std().item(), rel=0.02)
    assert 0.02 / 4 == pytest.approx(block.mlp.contract.weight.std().item(), rel=0.02)
    assert 0.02 / 4 == pytest.approx(block.attention.output.weight.std().item(), rel=0.02)
    assert 0 == block.mlp.expand.bias.abs().max()
    assert 1 == block.mlp_norm.weight.min()


def test_the_generator_decides_the_weights_and_nothing_else_does():
    one, two = make(), make()

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_initial_loss_is_that_of_guessing():
    model = make(vocabulary=50, hidden=32)
    tokens_BT = torch.randint(50, (4, 6))
    loss = next_token_loss(model, {"tokens": tokens_BT, "targets": torch.randint(50, (4, 6))})

    assert math.log(50) == pytest.approx(loss.item(), abs=0.1)


def test_a_later_token_changes_no_earlier_logit():
    model = make()
    tokens_BT = torch.randint(11, (1, 6))
    changed_BT = tokens_BT.clone()
    changed_BT[0, 4] = (changed_BT[0, 4] + 1) % 11
    before, after = model(tokens_BT), model(changed_BT)

    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_attention_is_torchs_scaled_dot_product_attention():
    attention = make().double().blocks[0].attention
    x_BTD = torch.randn(3, 5, 8, dtype=torch.float64)
    q, k, v = (attention.split(f(x_BTD)) for f in (attention.query, attention.key, attention.value))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(3, 5, 8)
    sight = Sight(future(5, 5, x_BTD.device))

    torch.testing.assert_close(attention.output(mixed), attention(x_BTD, sight), rtol=1e-12, atol=1e-14)


def test_dropout_acts_in_training_only_and_is_absent_when_zero():
    tokens_BT = torch.randint(11, (2, 6))
    model = make(dropout=0.5)
    assert not torch.equal(model(tokens_BT), model(tokens_BT))
    model.eval()
    assert torch.equal(model(tokens_BT), model(tokens_BT))
    assert not [module for module in make().modules() if isinstance(module, torch.nn.Dropout)]


def test_the_loss_is_the_mean_over_all_tokens():
    model = make()
    batch = {"tokens": torch.randint(11, (2, 6)), "targets": torch.randint(11, (2, 6))}
    log_probabilities = model(batch["tokens"]).log_softmax(-1)
    expected = -log_probabilities.gather(-1, batch["targets"][..., None]).mean()

    torch.testing.assert_close(expected, next_token_loss(model, batch))


def test_recomputed_blocks_give_the_same_gradients_with_dropout_too_and_keep_less():
    def gradients(recompute):
        kept, pack = [], lambda tensor: kept.append(tensor.numel()) or tensor
        model = Transformer(
            vocabulary=9, layers=3, heads=2, hidden=8, context=6, dropout=0.3, recompute=recompute,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        tokens_BT = torch.arange(12).view(2, 6) % 9
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = next_token_loss(model, {"tokens": tokens_BT, "targets": tokens_BT})
        loss.backward()
        return [parameter.grad for parameter in model.parameters()], sum(kept)

    (plain, much), (again, little) = gradients(recompute=False), gradients(recompute=True)

    assert all(torch.equal(one, two) for one, two in zip(plain, again, strict=True))
    assert 3 * little < much
