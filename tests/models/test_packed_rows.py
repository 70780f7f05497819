"""In a packed row no token sees another document, and each document is read as if it stood alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from chainrule.models.masks import future_or_foreign, positions_within
from small_transformers import VARIANTS, batch, make

DOCUMENTS = [4, 4, 4, 7, 7, 9]
PLACES = [slice(0, 3), slice(3, 5), slice(5, 6)]


def embedded_inputs(model, tokens_BT):
    """The token vectors as leaves of the graph, one a place, and a model that reads them."""
    vectors_BTD = model.tokens(tokens_BT).detach().requires_grad_()
    model.tokens.forward = lambda _: vectors_BTD
    return vectors_BTD


@pytest.mark.parametrize("name", ["gpt2", "llama", "sinusoidal", "no positions"])
@pytest.mark.parametrize("later", [1, 2])
def test_a_later_documents_loss_has_no_gradient_in_an_earlier_ones_tokens(name, later):
    model, inputs = make(**VARIANTS[name]), batch(documents=DOCUMENTS)
    vectors_BTD = embedded_inputs(model, inputs["tokens"])
    logits_BTV = model(inputs["tokens"], inputs["documents"])
    own = PLACES[later]
    F.cross_entropy(logits_BTV[:, own].flatten(0, 1), inputs["targets"][:, own].flatten()).backward()
    gradient_BTD = vectors_BTD.grad

    assert 0 == gradient_BTD[:, : own.start].abs().max()
    assert 0 < gradient_BTD[:, own].abs().min(dim=-1).values.min()
    unpacked = torch.autograd.grad(model(inputs["tokens"])[:, own].sum(), vectors_BTD)[0]
    assert 0 < unpacked[:, : own.start].abs().max()


@pytest.mark.parametrize("name", VARIANTS)
def test_each_document_has_the_logits_that_it_has_alone(name):
    model, inputs = make(**VARIANTS[name]).double(), batch(documents=DOCUMENTS)
    together = model(inputs["tokens"], inputs["documents"])
    alone = torch.cat([model(inputs["tokens"][:, place]) for place in PLACES], dim=1)

    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-14)


def test_one_document_in_a_row_is_a_row_that_is_not_packed():
    model, inputs = make().double(), batch(documents=[0] * 6)

    assert torch.equal(model(inputs["tokens"]), model(inputs["tokens"], inputs["documents"]))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_positions_count_from_each_documents_beginning(lengths):
    documents_BT = torch.tensor([[number for number, length in enumerate(lengths) for _ in range(length)]])
    expected = [place for length in lengths for place in range(length)]

    assert [expected] == positions_within(future_or_foreign(documents_BT)).tolist()
