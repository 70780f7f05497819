"""Every kind of Transformer passes `check`, and its gradients by the chain rule are autograd's, entry by entry."""

import pytest
import torch

import chainrule as cr
from chainrule.capture import promote
from chainrule.models import next_token_loss
from chainrule.models.attention import shared
from chainrule.models.positions import RotaryPositions, SinusoidalPositions, rotate
from small_transformers import VARIANTS, batch, make

PACKED = [0, 0, 1, 1, 1, 2]
PROVED = ("llama", "one key-value head", "sinusoidal")


@pytest.mark.parametrize(
    ("name", "documents"), [*((name, None) for name in VARIANTS), ("gpt2", PACKED), ("llama", PACKED)]
)
def test_every_entry_of_every_gradient_is_autograds_in_float64(name, documents):
    model, inputs = make(**VARIANTS[name] | {"layers": 1}).double(), batch(documents=documents)
    loss = next_token_loss(model, inputs)
    loss.backward()
    value, gradients = cr.value_and_grad(promote(cr.capture(model, next_token_loss, inputs), torch.float64))

    assert loss.item() == pytest.approx(value.item(), rel=1e-14)
    for parameter, ours in zip(dict(model.named_parameters()), gradients, strict=True):
        expected = model.get_parameter(parameter).grad
        torch.testing.assert_close(expected, gradients[ours], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", PROVED)
def test_check_passes(name):
    model = make(**VARIANTS[name])
    report = cr.check(cr.Setup(model, next_token_loss, [batch()], torch.optim.AdamW(model.parameters())))

    assert ("pass", ()) == (report.to_dict()["verdict"], report.findings)


def test_check_passes_on_packed_rows():
    model = make(**VARIANTS["llama"] | {"layers": 1})
    report = cr.check(cr.Setup(model, next_token_loss, [batch(documents=PACKED)]))

    assert ("pass", ()) == (report.to_dict()["verdict"], report.findings)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_later_token_changes_no_earlier_logit(name):
    model = make(**VARIANTS[name])
    tokens_BT = batch()["tokens"]
    changed_BT = tokens_BT.clone()
    changed_BT[:, 4] = (changed_BT[:, 4] + 1) % 11
    before, after = model(tokens_BT), model(changed_BT)

    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_rotated_queries_and_keys_meet_at_their_distance_alone():
    rotary = RotaryPositions(64, 8, base=10_000.0).double()
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    near = [rotate(q, *rotary(torch.tensor([at]))) * rotate(k, *rotary(torch.tensor([at - 3]))) for at in (3, 20, 60)]
    sums = [product.sum().item() for product in near]

    assert sums[0] == pytest.approx(sums[1], rel=1e-5)  # angles are float32
    assert sums[0] == pytest.approx(sums[2], rel=1e-5)
    assert q.norm().item() == pytest.approx(rotate(q, *rotary(torch.tensor([37]))).norm().item(), rel=1e-6)


def test_an_odd_head_cannot_be_rotated():
    with pytest.raises(ValueError, match="a head is 3 wide; rotary positions turn pairs, so it must be even"):
        make(heads=1, hidden=3, positions="rotary")


def test_sinusoids_are_the_papers():
    table = SinusoidalPositions(50, 8)(torch.arange(50)).double()
    p, i = 37, 2
    expected = [torch.tensor(p / 10000 ** (2 * i / 8), dtype=torch.float64).sin().item()]
    expected += [torch.tensor(p / 10000 ** (2 * i / 8), dtype=torch.float64).cos().item()]

    assert expected == pytest.approx(table[p, 2 * i : 2 * i + 2].tolist(), abs=1e-6)


def test_query_heads_of_a_group_share_a_key_value_head():
    x_BGSK = torch.randn(2, 2, 3, 4)
    heads = shared(x_BGSK, 6)

    assert [True] * 6 == [torch.equal(heads[:, n], x_BGSK[:, n // 3]) for n in range(6)]


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="16 hidden, 4 heads, 3 key-value heads: each must be a multiple of the next"):
        make(key_value_heads=3)
