"""The fused kernel computes what the formula written out does, and is taken where it is faster."""

import pytest
import torch
from torch import nn

from chainrule.models import next_token_loss
from chainrule.models.attention import attend, attend_fused, fused_is_faster
from chainrule.models.masks import future, future_or_foreign
from small_transformers import VARIANTS, batch, make

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# float64: the kernel sums in another order; 6e-15 and 3e-14 were the largest in 600 draws, another machine may round anew.
FORWARD, BACKWARD = {"rtol": 4e-14, "atol": 4e-15}, {"rtol": 2e-13, "atol": 2e-14}
DOCUMENTS = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("mask", ["future", "documents"])
def test_fused_and_written_out_attention_agree_with_their_gradients(mask):
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64, requires_grad=True).unbind()
    blocked = future(6, 6, CPU) if mask == "future" else future_or_foreign(DOCUMENTS)[:, None]
    written = attend(q, k, v, blocked, nn.Identity())
    fused = attend_fused(q, k, v, None if mask == "future" else blocked, nn.Identity())
    toward = torch.randn_like(written)

    torch.testing.assert_close(written, fused, **FORWARD)
    for one, two in zip(
        torch.autograd.grad(written, (q, k, v), toward), torch.autograd.grad(fused, (q, k, v), toward), strict=True
    ):
        torch.testing.assert_close(one, two, **BACKWARD)


@pytest.mark.parametrize("documents", [None, [0] * 90 + [1] * 110], ids=["whole rows", "packed rows"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_long_context_has_the_loss_that_it_has_written_out(name, documents):
    model, inputs = make(**VARIANTS[name] | {"context": 200}), batch(length=200, documents=documents)
    fused = next_token_loss(model, inputs)
    written = next_token_loss(model.double(), inputs)  # float64 is written out at this length

    assert written.item() == pytest.approx(fused.item(), rel=5e-7)  # 8 float32 units; 2 were measured


def test_dropout_in_the_fused_kernel_acts_in_training_only():
    q = torch.randn(1, 1, 6, 8)
    dropout = nn.Dropout(0.5)
    training = [attend_fused(q, q, q, None, dropout) for _ in range(2)]
    dropout.eval()

    assert not torch.equal(*training)
    torch.testing.assert_close(attend(q, q, q, future(6, 6, CPU), dropout), attend_fused(q, q, q, None, dropout))


@pytest.mark.parametrize(
    ("expected", "device", "dtype", "length", "dropout"),
    [
        (True, CUDA, torch.bfloat16, 64, 0.1),
        (False, CUDA, torch.float64, 64, 0.0),
        (False, CPU, torch.float32, 128, 0.0),
        (True, CPU, torch.float32, 256, 0.0),
        (False, CPU, torch.bfloat16, 512, 0.0),
        (True, CPU, torch.bfloat16, 1024, 0.0),
        (False, CPU, torch.bfloat16, 1024, 0.1),
    ],
)
def test_the_form_that_was_measured_faster_is_taken(expected, device, dtype, length, dropout):
    assert expected == fused_is_faster(device, dtype, length, dropout)
