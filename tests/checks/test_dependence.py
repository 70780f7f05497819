"""The checks of dependence: what they say in words, and the healthy look-alikes on which they are silent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import chainrule as cr
from faults.dependence_faults import (
    LM,
    Attention,
    Encoder,
    LMForCausalLM,
    Pooled,
    Rows,
    next_token,
    padded,
    per_position,
    plain,
    text,
    unmasked,
)
from small_models import BatchNormCNN, class_loss

CHECKS = ("future-leak", "target-alignment", "batch-leak", "padding-influence", "scrambled-heads")


def said(setup: cr.Setup, only: tuple[str, ...] = CHECKS) -> list[str]:
    return [f"{f.severity} {f.check} {f.where}" for f in cr.check(setup, only=only).findings]


def test_a_masked_language_model_sees_all_and_is_healthy():  # H08
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits_BTV, scored = model(batch[0]), torch.zeros(11, dtype=torch.bool)
        scored[[1, 4, 7, 9]] = True
        return F.cross_entropy(logits_BTV[:, scored].flatten(0, 1), batch[1][:, scored].flatten())

    ids_BT = torch.randint(31, (3, 11))
    hidden_BT = ids_BT.clone()
    hidden_BT[:, [1, 4, 7]] = 30
    model = LM(Attention(unmasked))

    assert [] == said(cr.Setup(model, loss, [(hidden_BT, ids_BT)]))
    assert [] == said(cr.Setup(model, next_token, [(ids_BT, ids_BT)]))  # an autoencoder, or a tagger


def test_a_prefix_that_sees_itself_whole_is_healthy():  # H08
    def prefix(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
        visible_TT = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
        visible_TT[:, :4] = True
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible_TT)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0])[:, 4:].flatten(0, 1), batch[1][:, 4:].flatten())

    assert [] == said(cr.Setup(LM(Attention(prefix)), loss, [text()]))


def test_a_class_that_is_called_causal_and_is_not_is_a_warning():
    """The loss is a score of the whole text, so that nothing but the name claims causality."""
    model = LMForCausalLM(Attention(unmasked))
    setup = cr.Setup(model, lambda m, b: m(b[0]).square().mean(), [text()])

    assert ["warning future-leak layers.1.mixer"] == said(setup, ("future-leak",))


def test_a_claim_against_causality_is_believed():
    setup = cr.Setup(LM(Attention(unmasked)), next_token, [text()], causal=False)

    report = cr.check(setup, only=("future-leak",))

    assert "Setup.causal is False" == report.stages[0].not_run["future-leak"].reason
    assert () == report.findings


def test_batch_norm_in_training_is_healthy():  # H09
    images = torch.randn(5, 3, 8, 8), torch.arange(5)

    assert [] == said(cr.Setup(BatchNormCNN(), class_loss, [images]))


def test_a_contrastive_loss_is_healthy():  # H09
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores_BB = F.normalize(model(batch[0]), dim=-1) @ F.normalize(batch[1], dim=-1).T
        return F.cross_entropy(scores_BB, torch.arange(len(scores_BB)))

    assert [] == said(cr.Setup(nn.Linear(6, 4), loss, [(torch.randn(5, 6), torch.randn(5, 4))]))


def test_coupling_that_is_claimed_is_believed():
    model = Pooled(Rows(lambda x: x - x.mean(0, keepdim=True)))
    batch = torch.randn(4, 6, 5), torch.tensor([0, 1, 2, 1])
    claimed = cr.Setup(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), [batch], batch_independent=False)

    assert [] == said(claimed)


def test_time_first_recurrences_are_healthy():
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.cell, self.head = nn.Embedding(31, 16), nn.LSTM(16, 16), nn.Linear(16, 31)

        def forward(self, ids_TB: Tensor) -> Tensor:
            return self.head(self.cell(self.token(ids_TB))[0])

    ids_TB = torch.randint(31, (12, 3))

    assert [] == said(cr.Setup(TimeFirst(), next_token, [(ids_TB[:-1], ids_TB[1:].contiguous())]))


def test_dropout_leaks_nothing():  # H15
    class Dropped(Attention):
        def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
            return F.dropout(super().forward(x_BTD, mask_BT), 0.3, self.training)

    assert [] == said(cr.Setup(LM(Dropped()), next_token, [text()], causal=True, batch_independent=True))


def test_padded_queries_that_see_padded_keys_are_healthy():  # M14
    def same_kind(q: Tensor, k: Tensor, v: Tensor, mask_BT: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=(mask_BT[:, :, None] == mask_BT[:, None])[:, None])

    assert [] == said(cr.Setup(Encoder(same_kind), per_position, [padded()]))


def test_a_mask_without_padding_is_tried_with_some():
    batch = padded()
    batch["mask"] = torch.ones_like(batch["mask"])

    assert [] == said(cr.Setup(Encoder(), per_position, [batch]), ("padding-influence",))
    ignored = cr.Setup(Encoder(lambda q, k, v, _: plain(q, k, v, None)), per_position, [batch])
    assert ["warning padding-influence layers.1.mixer"] == said(ignored, ("padding-influence",))


@pytest.mark.parametrize("heads", [1, 4])
def test_torchs_own_attention_is_not_scrambled(heads):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, heads, batch_first=True)

        def forward(self, x_BTD: Tensor) -> Tensor:
            return self.attention(x_BTD, x_BTD, x_BTD)[0]

    batch = torch.randn(4, 6, 5), torch.tensor([0, 1, 2, 1])

    assert [] == said(cr.Setup(Pooled(Own()), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [batch]))


def test_attention_over_channels_is_not_scrambled():
    class Channels(nn.Module):
        """XCiT: every head attends from channel to channel."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x_BTD: Tensor) -> Tensor:
            split = (part.unflatten(-1, (4, 4)).permute(0, 2, 3, 1) for part in self.qkv(x_BTD).chunk(3, -1))
            y_BHKT = F.scaled_dot_product_attention(*split)
            return self.out(y_BHKT.permute(0, 3, 1, 2).flatten(2))

    batch = torch.randn(4, 6, 5), torch.tensor([0, 1, 2, 1])

    assert [] == said(cr.Setup(Pooled(Channels()), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [batch]))


def test_a_leak_is_reported_in_full():
    report = cr.check(cr.Setup(LM(Attention(unmasked)), next_token, [text()]), only=("future-leak",))

    (finding,) = report.findings
    assert ("error", "layers.1.mixer") == (finding.severity, finding.where)
    until, later = finding.evidence["until"], finding.evidence["later"]
    assert f"the output up to position {until} depends on the input at position {later}" == finding.message
    assert until < later
    assert "its loss asks each position for the next token" in finding.notes[0]
    assert "softmax(-1)" in finding.source.code
    assert finding.evidence["ratio"] > 0.01


def test_the_wrong_target_is_reported_with_its_shares():
    ids_BT, _ = text()
    report = cr.check(cr.Setup(LM(), next_token, [(ids_BT, ids_BT)], causal=True), only=("target-alignment",))

    (finding,) = report.findings
    assert "the model is taught its own input, not the next token" == finding.message
    assert ("pulled to the token at t + 0", "100.0%") == finding.rows[0][:2]


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_state_that_is_written_in_place_hides_nothing(ahead):
    class Recurrent(nn.Module):
        """In eval mode its state is written in place, as some recurrent language models do for generation."""

        def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
            if self.training:
                return x_BTD.cumsum(1)
            state_BD, seen = torch.zeros_like(x_BTD[:, 0]), []
            for x_BD in x_BTD.roll(-ahead, dims=1).unbind(1):
                state_BD += x_BD
                seen.append(state_BD * x_BD)
            return torch.stack(seen, dim=1)

    setup = cr.Setup(LM(Recurrent()), next_token, [text()], causal=True)

    assert ["error future-leak layers.1.mixer"][:ahead] == said(setup, ("future-leak",))
