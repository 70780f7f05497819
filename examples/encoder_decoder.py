"""An encoder-decoder of the Transformer's parts translates dates: 9 March 1954 is 1954-03-09.

The encoder reads all letters at once; each letter of the answer is written from those before it and, by cross-attention, from
what was read (Vaswani et al. 2017, section 3.1). The gradients are proved first; the dates asked for are not trained on.

Expected output:
check: pass
12 August 2002 is 2002-08-12
more than 9 of 10 new dates are right: True
"""

from datetime import date
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.models.attention import Attention, Sight, attend
from chainrule.models.feed_forward import PlainMLP
from chainrule.models.positions import SinusoidalPositions
from chainrule.models.transformer import Block

attention, mlp = partial(Attention, 64, 4, 4, bias=True, dropout=0.0), partial(PlainMLP, 64, 256, F.gelu, bias=True)


class EncoderDecoder(nn.Module):
    def __init__(self, D=64):
        super().__init__()
        self.letters, self.positions, self.head = nn.Embedding(128, D), SinusoidalPositions(18, D), nn.Linear(D, 128)
        self.encoder, self.decoder = (
            Block(nn.LayerNorm(D), attention(), nn.LayerNorm(D), mlp(), 0.0) for _ in range(2)
        )
        self.norm, self.cross = nn.LayerNorm(D), attention()

    def forward(self, source_BS, given_BT):
        S, T, a = source_BS.shape[1], given_BT.shape[1], self.cross
        memory_BSD = self.encoder(self.letters(source_BS) + self.positions(torch.arange(S)), Sight(None))
        y_BTD = self.letters(given_BT) + self.positions(torch.arange(T))
        q, k, v = a.split(a.query(self.norm(y_BTD))), a.split(a.key(memory_BSD)), a.split(a.value(memory_BSD))
        y_BTD = y_BTD + a.output(attend(q, k, v, None, a.dropout).transpose(1, 2).flatten(2))
        return self.head(self.decoder(y_BTD, Sight(torch.ones(T, T, dtype=torch.bool).triu(1))))


def batch_of(days):
    dates = [date.fromordinal(date(1900, 1, 1).toordinal() + day) for day in days.tolist()]
    source = [[*f"{d:%d %B %Y}".ljust(17).encode()] for d in dates]
    return {"source": torch.tensor(source), "answer": torch.tensor([[*f"={d}".encode()] for d in dates])}


def loss(model, batch):
    return F.cross_entropy(model(batch["source"], batch["answer"][:, :-1]).mT, batch["answer"][:, 1:])


torch.manual_seed(0)
model, (new, known) = EncoderDecoder(), torch.randperm(73_000).split([200, 72_800])
print("check:", cr.check(cr.Setup(model, loss, [batch_of(new[:4])])).verdict)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for start in range(0, 250 * 64, 64):
    value = loss(model, batch_of(known[start : start + 64]))
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
asked, written = batch_of(new), torch.full((200, 1), ord("="))
for _ in range(10):
    written = torch.cat([written, model(asked["source"], written)[:, -1:].argmax(-1)], dim=1)
print(f"{bytes(asked['source'][0].tolist()).decode().strip()} is {bytes(written[0, 1:].tolist()).decode()}")
print("more than 9 of 10 new dates are right:", bool((written == asked["answer"]).all(dim=1).double().mean() > 0.9))
