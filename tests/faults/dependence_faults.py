"""Faults in what an output depends on: the future, other examples, padding, scrambled heads, the wrong target.

B batch, T tokens, D width, H heads, K width of a head, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import Setup
from faults.case import Case

V, T, D, H = 31, 11, 16, 4

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def masked(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Attention(nn.Module):
    """Self-attention with the core handed in, so that a fault is one line of it."""

    def __init__(self, core: Attend = masked) -> None:
        super().__init__()
        self.qkv, self.out, self.core = nn.Linear(D, 3 * D), nn.Linear(D, D), core

    def heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (H, D // H)).transpose(1, 2)

    def merged(self, y_BHTK: Tensor) -> Tensor:
        return y_BHTK.transpose(1, 2).flatten(2)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        q, k, v = (self.heads(part) for part in self.qkv(x_BTD).chunk(3, dim=-1))
        return self.out(self.merged(self.core(q, k, v, mask_BT)))


class Layer(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mixer = nn.LayerNorm(D), nn.LayerNorm(D), mixer
        self.mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        mixed = self.mixer(self.norm1(x_BTD)) if mask_BT is None else self.mixer(self.norm1(x_BTD), mask_BT)
        x_BTD = x_BTD + mixed
        return x_BTD + self.mlp(self.norm2(x_BTD))


class LM(nn.Module):
    """Two layers; the second one has the mixer of the case."""

    def __init__(self, mixer: nn.Module | None = None) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(V, D), nn.Embedding(32, D)
        self.layers = nn.ModuleList([Layer(Attention()), Layer(mixer or Attention())])
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        x_BTD = self.token(ids_BT) + self.position(torch.arange(ids_BT.shape[1]))
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT)
        return self.head(self.norm(x_BTD))


class LMForCausalLM(LM):
    """The same under a name that says what it is."""


def text(rows: int = 3, length: int = T) -> tuple[Tensor, Tensor]:
    ids_BT = torch.randint(V, (rows, length + 1))
    return ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()


def next_token(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def language(mixer: nn.Module, **claims: bool) -> Setup:
    return Setup(LM(mixer), next_token, [text()], **claims)


def of_core(broken: Attend, repaired: Attend = masked) -> Callable[[bool], Setup]:
    return lambda wrong: language(Attention(broken if wrong else repaired))


# --- future-leak ------------------------------------------------------------------------------------------------------
def unmasked(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    weights_BHTT = (q @ k.mT / math.sqrt(D // H)).softmax(-1)
    return weights_BHTT @ v


def fused_without_is_causal(q: Tensor, k: Tensor, v: Tensor, mask_BT: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_BT)


def skipped_without_padding(q: Tensor, k: Tensor, v: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The causal part is added to a padding mask, and forgotten where there is none."""
    scores_BHTT = q @ k.mT / math.sqrt(D // H)
    if mask_BT is not None:
        future_TT = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        scores_BHTT = scores_BHTT.masked_fill(future_TT | (mask_BT == 0)[:, None, None], -math.inf)
    return scores_BHTT.softmax(-1) @ v


def mask_multiplied(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    """An additive mask of -inf made anew by multiplying with a triangle (Gemma-2's sliding window)."""
    lower_TT = torch.ones(q.shape[2], q.shape[2]).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(1 - lower_TT) * lower_TT)


def mask_one_too_wide(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    visible_TT = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible_TT)


def masked_after_softmax(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    """Masked after the softmax: its denominator still sees the future."""
    weights_BHTT = (q @ k.mT / math.sqrt(D // H)).softmax(-1)
    return weights_BHTT.tril() @ v


def upside_down(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    visible_TT = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible_TT)


class TimeNorm(nn.Module):
    """A causal convolution followed by a normalisation over channels and time, or over channels alone."""

    def __init__(self, *, over_time: bool) -> None:
        super().__init__()
        self.conv, self.over_time = nn.Conv1d(D, D, 3), over_time
        self.group = nn.GroupNorm(1, D) if over_time else nn.LayerNorm(D)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BDT = self.conv(F.pad(x_BTD.mT, (2, 0)))
        return self.group(y_BDT).mT if self.over_time else self.group(y_BDT.mT)


class Convolution(nn.Module):
    def __init__(self, *, centred: bool) -> None:
        super().__init__()
        self.conv, self.centred = nn.Conv1d(D, D, 3), centred

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.conv(F.pad(x_BTD.mT, (1, 1) if self.centred else (2, 0))).mT


class Recurrence(nn.Module):
    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.cell = nn.GRU(D, D // 2 if both else D, batch_first=True, bidirectional=both)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.cell(x_BTD)[0]


class Centred(nn.Module):
    """Subtracts the mean over all positions, or over those so far."""

    def __init__(self, *, over_all: bool) -> None:
        super().__init__()
        self.linear, self.over_all = nn.Linear(D, D), over_all

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD = self.linear(x_BTD)
        if self.over_all:
            return y_BTD - y_BTD.mean(1, keepdim=True)
        return y_BTD - y_BTD.cumsum(1) / torch.arange(1, y_BTD.shape[1] + 1)[:, None]


class EvalOnly(nn.Module):
    """The path of evaluation lost its mask: a leak only there."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.attention, self.broken = Attention(), broken

    def forward(self, x_BTD: Tensor) -> Tensor:
        open_ = self.broken and not self.training
        self.attention.core = unmasked if open_ else masked
        return self.attention(x_BTD)


class Chunked(nn.Module):
    """Linear attention by chunks: the state handed on is that of the chunk itself, not of the ones before."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.broken = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D), broken

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = self.q(x_BTD).exp(), self.k(x_BTD).exp(), self.v(x_BTD)
        pairs = (q @ k.mT).tril()
        if self.broken:
            pairs = torch.block_diag(*[torch.ones(4, 4)] * 3)[: x_BTD.shape[1], : x_BTD.shape[1]] * (q @ k.mT) + pairs
        return pairs @ v / 100


def time_norm(broken: bool) -> Setup:
    return language(TimeNorm(over_time=broken))


def centred_convolution(broken: bool) -> Setup:
    return language(Convolution(centred=broken))


def both_directions(broken: bool) -> Setup:
    return language(Recurrence(both=broken))


def mean_over_time(broken: bool) -> Setup:
    return language(Centred(over_all=broken))


def leak_in_eval(broken: bool) -> Setup:
    return language(EvalOnly(broken=broken))


def chunk_state(broken: bool) -> Setup:
    return language(Chunked(broken=broken))


class Forecaster(nn.Module):
    """Floating inputs and outputs, no tokens: causality is claimed."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.up, self.mixer, self.down = (
            nn.Linear(2, D),
            Layer(Attention(unmasked if broken else masked)),
            nn.Linear(D, 1),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.mixer(self.up(x_BTD)))


def forecaster(broken: bool) -> Setup:
    batch = torch.randn(3, T, 2), torch.randn(3, T, 1)
    return Setup(Forecaster(broken=broken), lambda m, b: F.mse_loss(m(b[0]), b[1]), [batch], causal=True)


class Scrambled(Attention):
    """Heads made by a view alone: a head's positions are pieces of other positions."""

    def heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.reshape(x_BTD.shape[0], H, x_BTD.shape[1], D // H)


def heads_by_view(broken: bool) -> Setup:
    return language(Scrambled() if broken else Attention())


# --- target-alignment -------------------------------------------------------------------------------------------------
def shifted_loss(shift: int) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits_BTV = model(batch[0])
        length = logits_BTV.shape[1] - shift
        return F.cross_entropy(logits_BTV[:, :length].flatten(0, 1), batch[1][:, shift:].flatten())

    return loss


def shifted_twice(broken: bool) -> Setup:
    return Setup(LMForCausalLM(), shifted_loss(1 if broken else 0), [text()])


def not_shifted(broken: bool) -> Setup:
    ids_BT, ahead_BT = text()
    return Setup(LM(), next_token, [(ids_BT, ids_BT if broken else ahead_BT)], causal=True)


def not_shifted_in_the_loss(broken: bool) -> Setup:
    ids_BT, _ = text()
    return Setup(LM(), shifted_loss(0 if broken else 1), [(ids_BT, ids_BT)])


def transposed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).transpose(1, 2), batch[1], label_smoothing=0.1)


def shifted_twice_with_padding(broken: bool) -> Setup:
    """Ignored labels, label smoothing, logits as (B, V, T)."""
    ids_BT = torch.randint(V, (3, T + 2))
    labels_BT = (ids_BT[:, 2:] if broken else ids_BT[:, 1:-1]).clone()
    labels_BT[1, 7:] = -100
    return Setup(LM(), transposed, [(ids_BT[:, :-2], labels_BT)])


def lstm_shifted_twice(broken: bool) -> Setup:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.cell, self.head = nn.Embedding(V, D), nn.LSTM(D, D, batch_first=True), nn.Linear(D, V)

        def forward(self, ids_BT: Tensor) -> Tensor:
            return self.head(self.cell(self.token(ids_BT))[0])

    return Setup(Words(), shifted_loss(1 if broken else 0), [text()])


# --- batch-leak -------------------------------------------------------------------------------------------------------
class Pooled(nn.Module):
    """A classifier of sequences: a mixer, then the mean over positions."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Linear(5, D), nn.GELU())
        self.mixer, self.head = mixer, nn.Linear(D, 3)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTD = self.mixer(self.up(x_BTD))
        return self.head(h_BTD.mean(1))


def sequences(mixer: nn.Module, **claims: bool) -> Setup:
    batch = torch.randn(4, 6, 5), torch.tensor([0, 1, 2, 1])
    return Setup(Pooled(mixer), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [batch], **claims)


class TorchAttention(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, H, batch_first=batch_first)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.attention(x_BTD, x_BTD, x_BTD, need_weights=False)[0]


class Rows(nn.Module):
    """Any function of (B, T, D) as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(D, D), function

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.function(self.linear(x_BTD))


def attention_over_the_batch(broken: bool) -> Setup:
    return sequences(TorchAttention(batch_first=not broken))


def recurrence_over_the_batch(broken: bool) -> Setup:
    cell = nn.GRU(D, D, batch_first=not broken)
    return sequences(Rows(lambda x: cell(x)[0]), batch_independent=True)


def softmax_over_the_batch(broken: bool) -> Setup:
    return sequences(Rows(lambda x: x * x.softmax(0 if broken else 1)))


def normalised_over_the_batch(broken: bool) -> Setup:
    axis = 0 if broken else 2
    return sequences(Rows(lambda x: (x - x.mean(axis, keepdim=True)) / (x.std(axis, keepdim=True) + 1e-5)))


def rows_mixed_by_reshape(broken: bool) -> Setup:
    """(B, T, D) taken apart along T and put together as if it had been along B."""

    def mixed(x_BTD: Tensor) -> Tensor:
        B, length, width = x_BTD.shape
        return x_BTD.transpose(0, 1).reshape(B, length, width) if broken else x_BTD.reshape(B, length, width)

    return sequences(Rows(mixed), batch_independent=True)


def scaled_by_the_batch(broken: bool) -> Setup:
    """Weights quantised by the largest activation of the batch, or of the example."""
    scale = (lambda x: x / x.abs().max()) if broken else (lambda x: x / x.abs().amax((1, 2), keepdim=True))
    return sequences(Rows(scale))


def image_batch_leak(broken: bool) -> Setup:
    class Squeeze(nn.Module):
        """Channel attention whose average runs over the examples too."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.conv(x))
            mean = h.mean((0, 2, 3), keepdim=True) if broken else h.mean((2, 3), keepdim=True)
            h = h * self.gate(mean.flatten(1)).sigmoid()[:, :, None, None]
            return self.head(h.mean((2, 3)))

    batch = torch.randn(5, 3, 8, 8), torch.arange(5) % 4
    return Setup(Squeeze(), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [batch])


# --- padding-influence ------------------------------------------------------------------------------------------------
def visible(mask_BT: Tensor | None) -> Tensor | None:
    return None if mask_BT is None else mask_BT.bool()[:, None, None]


def masked_keys(q: Tensor, k: Tensor, v: Tensor, mask_BT: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible(mask_BT))


def mask_ignored(q: Tensor, k: Tensor, v: Tensor, mask_BT: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


class Encoder(nn.Module):
    """Masked attention in the first layer, the case's in the second; then a head per position, or one for all."""

    def __init__(self, core: Attend = masked_keys, *, pool: str = "") -> None:
        super().__init__()
        self.token, self.pool = nn.Embedding(V, D), pool
        self.layers = nn.ModuleList([Layer(Attention(masked_keys)), Layer(Attention(core))])
        self.head = nn.Linear(D, 3)

    def forward(self, ids_BT: Tensor, attention_mask: Tensor) -> Tensor:
        x_BTD = self.token(ids_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, attention_mask)
        if self.pool == "all":
            x_BTD = x_BTD.mean(1)
        elif self.pool == "valid":
            x_BTD = (x_BTD * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        return self.head(x_BTD)


def padded() -> dict[str, Tensor]:
    mask_BT = torch.ones(3, T, dtype=torch.long)
    mask_BT[1, 7:], mask_BT[2, 4:] = 0, 0
    return {"ids": torch.randint(V, (3, T)) * mask_BT, "mask": mask_BT, "label": torch.tensor([0, 2, 1])}


def per_position(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    out_BTC = model(batch["ids"], attention_mask=batch["mask"])
    scored = batch["mask"].bool()
    return F.cross_entropy(out_BTC[scored], (batch["ids"] % 3)[scored])


def per_example(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["ids"], batch["mask"]), batch["label"])


def attention_without_the_mask(broken: bool) -> Setup:
    return Setup(Encoder(mask_ignored if broken else masked_keys), per_position, [padded()])


def mean_over_padding(broken: bool) -> Setup:
    return Setup(Encoder(pool="all" if broken else "valid"), per_example, [padded()])


class LastState(nn.Module):
    """A recurrent classifier that reads the state at the end of the row, or at the end of the text."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__()
        self.token, self.cell, self.head, self.broken = (
            nn.Embedding(V, D),
            nn.GRU(D, D, batch_first=True),
            nn.Linear(D, 3),
            broken,
        )

    def forward(self, ids_BT: Tensor, lengths: Tensor) -> Tensor:
        h_BTD, _ = self.cell(self.token(ids_BT))
        last_BD = h_BTD[:, -1] if self.broken else h_BTD[torch.arange(len(ids_BT)), lengths - 1]
        return self.head(last_BD)


def state_after_the_padding(broken: bool) -> Setup:
    batch = padded()
    lengths = batch["mask"].sum(1)
    loss = lambda m, b: F.cross_entropy(m(b["ids"], b["lengths"]), b["label"])  # noqa: E731
    return Setup(LastState(broken=broken), loss, [batch | {"lengths": lengths}])


def mask_inverted(broken: bool) -> Setup:
    """nn.MultiheadAttention's key_padding_mask is True where padded; the broken one hands over the opposite."""

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.attention = nn.Embedding(V, D), nn.MultiheadAttention(D, H, batch_first=True)
            self.head = nn.Linear(D, 3)

        def forward(self, ids_BT: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.token(ids_BT)
            padding = attention_mask == (1 if broken else 0)
            y = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
            return self.head(x + torch.nan_to_num(y))

    batch = padded()
    batch["mask"][0, -2:] = 0
    return Setup(Text(), per_position, [batch])


# --- document-leak ----------------------------------------------------------------------------------------------------
def by_blocks(q: Tensor, k: Tensor, v: Tensor, document_BT: Tensor | None) -> Tensor:
    same_B1TT = (document_BT[:, :, None] == document_BT[:, None])[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=same_B1TT.tril())


class Packed(nn.Module):
    """Several texts in a row; their positions start again at 0."""

    def __init__(self, core: Attend) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(V, D), nn.Embedding(32, D)
        self.layers = nn.ModuleList([Layer(Attention(by_blocks)), Layer(Attention(core))])
        self.head = nn.Linear(D, V)

    def forward(self, ids_BT: Tensor, position_ids: Tensor) -> Tensor:
        x_BTD = self.token(ids_BT) + self.position(position_ids)
        for layer in self.layers:
            x_BTD = layer(x_BTD, (position_ids == 0).cumsum(1))
        return self.head(x_BTD)


def packed_documents(broken: bool) -> Setup:
    ids_BT, ahead_BT = text()
    positions_BT = torch.stack([torch.cat([torch.arange(n), torch.arange(T - n)]) for n in (4, 5, 7)])
    loss = lambda m, b: F.cross_entropy(m(b[0], b[1]).flatten(0, 1), b[2].flatten())  # noqa: E731
    return Setup(Packed(masked if broken else by_blocks), loss, [(ids_BT, positions_BT, ahead_BT)])


# --- scrambled-heads --------------------------------------------------------------------------------------------------
class Scrambling(Attention):
    """In an encoder, where the future gives nothing away."""

    def __init__(self, core: Attend, *, split: bool = False, merge: bool = False) -> None:
        super().__init__(core)
        self.split, self.merge = split, merge

    def heads(self, x_BTD: Tensor) -> Tensor:
        if self.split:
            return x_BTD.reshape(x_BTD.shape[0], H, x_BTD.shape[1], D // H)
        return super().heads(x_BTD)

    def merged(self, y_BHTK: Tensor) -> Tensor:
        if self.merge:
            return y_BHTK.reshape(y_BHTK.shape[0], y_BHTK.shape[2], D)
        return super().merged(y_BHTK)


def plain(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def split_by_a_view(broken: bool) -> Setup:
    return sequences(Scrambling(plain, split=broken))


def merged_by_a_view(broken: bool) -> Setup:
    return sequences(Scrambling(plain, merge=broken))


def split_by_a_view_written_out(broken: bool) -> Setup:
    return sequences(Scrambling(unmasked, split=broken))


class ForgottenTranspose(Attention):
    """(B, T, H, K) handed to attention as it is: it attends from head to head."""

    broken = False

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (H, D // H)) for part in self.qkv(x_BTD).chunk(3, dim=-1))
        if self.broken:
            return self.out(F.scaled_dot_product_attention(q, k, v).flatten(2))
        y_BHTK = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out(y_BHTK.transpose(1, 2).flatten(2))


def forgotten_transpose(broken: bool) -> Setup:
    mixer = ForgottenTranspose()
    mixer.broken = broken
    return sequences(mixer)


CASES: list[Case] = [
    Case("M01", "transformers#48745", "softmax without a mask", "future-leak", of_core(unmasked), "layers.1.mixer"),
    Case(
        "M02",
        "transformers#48748",
        "fused attention, not causal",
        "future-leak",
        of_core(fused_without_is_causal),
        "mixer",
    ),
    Case(
        "M05",
        "xformers#103",
        "no mask given, none used",
        "future-leak",
        of_core(skipped_without_padding),
        "1.mixer",
    ),
    Case(
        "M06",
        "transformers#31673",
        "additive mask multiplied",
        "future-leak",
        of_core(mask_multiplied),
        "layers.1.mixer",
    ),
    Case("M07", "entrenar#310", "no causal mask, causality claimed", "future-leak", forecaster, "mixer.mixer"),
    Case("M07b", "generic", "mask one position too wide", "future-leak", of_core(mask_one_too_wide), "layers.1.mixer"),
    Case("M07c", "generic", "masked after the softmax", "future-leak", of_core(masked_after_softmax), "layers.1.mixer"),
    Case("M07d", "generic", "triangle upside down", "future-leak", of_core(upside_down), "layers.1.mixer"),
    Case("M07e", "generic", "mask missing in eval mode only", "future-leak", leak_in_eval, "layers.1.mixer"),
    Case("M09", "espnet#5900", "normalised over time", "future-leak", time_norm, "layers.1.mixer.group"),
    Case("M09b", "generic", "mean over all positions", "future-leak", mean_over_time, "y_BTD.mean(1"),
    Case("M09c", "generic", "centred convolution", "future-leak", centred_convolution, "layers.1.mixer"),
    Case("M09d", "generic", "recurrence in both directions", "future-leak", both_directions, "layers.1.mixer.cell"),
    Case("M09e", "generic", "chunk sees itself whole", "future-leak", chunk_state, "layers.1.mixer"),
    Case("S37", "StackOverflow 38447935", "heads by a view", "future-leak", heads_by_view, "layers.1.mixer"),
    Case("L05", "transformers#47394", "labels shifted twice", "target-alignment", shifted_twice, "cross_entropy"),
    Case(
        "L05b", "transformers PR#46784", "twice, smoothed, padded", "target-alignment", shifted_twice_with_padding, "LM"
    ),
    Case(
        "L05c", "transformers#46897", "labels of an LSTM shifted twice", "target-alignment", lstm_shifted_twice, "Words"
    ),
    Case("L06", "MONAI GenerativeModels#314", "labels not shifted", "target-alignment", not_shifted, "cross_entropy"),
    Case("L06b", "generic", "shift left out of the loss", "target-alignment", not_shifted_in_the_loss, "LM"),
    Case("J01", "generic", "attention over the batch", "batch-leak", attention_over_the_batch, "mixer.attention"),
    Case("J02", "generic", "recurrence over the batch", "batch-leak", recurrence_over_the_batch, "mixer"),
    Case("J03", "generic", "softmax over the batch", "batch-leak", softmax_over_the_batch, "x.softmax(0"),
    Case("J04", "generic", "normalised over the batch", "batch-leak", normalised_over_the_batch, "mixer"),
    Case("S37b", "StackOverflow 38447935", "rows mixed by a reshape", "batch-leak", rows_mixed_by_reshape, "reshape"),
    Case("J05", "generic", "scaled by the batch's maximum", "batch-leak", scaled_by_the_batch, "mixer"),
    Case("J06", "generic", "channel attention over examples", "batch-leak", image_batch_leak, "Squeeze"),
    Case(
        "M12",
        "IndicBERT#20",
        "attention mask not used",
        "padding-influence",
        attention_without_the_mask,
        "layers.1.mixer",
    ),
    Case("M12b", "minimind-v#76", "mean over the padding too", "padding-influence", mean_over_padding, "x_BTD.mean(1)"),
    Case("M12c", "generic", "state read after the padding", "padding-influence", state_after_the_padding, "LastState"),
    Case("M12d", "generic", "padding mask inverted", "padding-influence", mask_inverted, "attention"),
    Case("S37c", "generic", "heads split by a view", "scrambled-heads", split_by_a_view, "reshape"),
    Case("S37d", "generic", "heads put together by a view", "scrambled-heads", merged_by_a_view, "reshape"),
    Case(
        "S37e", "generic", "the same, attention written out", "scrambled-heads", split_by_a_view_written_out, "reshape"
    ),
    Case("S37f", "generic", "heads not transposed", "scrambled-heads", forgotten_transpose, "unflatten"),
    Case(
        "M27", "known packing issue", "packed texts see each other", "document-leak", packed_documents, "layers.1.mixer"
    ),
]
