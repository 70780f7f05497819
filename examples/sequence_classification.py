"""Sequence classification with the Transformer's parts: is a line of the standard library code, or words for people?

Words are comments without their marks, code is as many other lines. Every other file of asyncio is trained on, the files
between are asked. The model reads bytes, sees the whole line, and averages over it.

Expected output:
check: pass
... lines to train on, ... to ask
more than 85 of 100 lines of other files are right: True
"""

import sysconfig
import tokenize
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.models.attention import Attention, Sight
from chainrule.models.feed_forward import PlainMLP
from chainrule.models.positions import SinusoidalPositions
from chainrule.models.transformer import Block

D, LENGTH = 32, 40


class LineClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.bytes, self.positions, self.head = nn.Embedding(256, D), SinusoidalPositions(LENGTH, D), nn.Linear(D, 2)
        attention, mlp = Attention(D, 4, 4, bias=True, dropout=0.0), PlainMLP(D, 4 * D, F.gelu, bias=True)
        self.block = Block(nn.LayerNorm(D), attention, nn.LayerNorm(D), mlp, dropout=0.0)

    def forward(self, bytes_BT):
        empty_BT = bytes_BT == 0
        x_BTD = self.bytes(bytes_BT) + self.positions(torch.arange(LENGTH))
        x_BTD = self.block(x_BTD, Sight(blocked=empty_BT[:, None, None]))  # of what only fills the row
        return self.head(x_BTD.masked_fill(empty_BT[..., None], 0).sum(1) / (~empty_BT).sum(1, keepdim=True))


def loss(model, batch):
    return F.cross_entropy(model(batch["bytes"]), batch["words"])


def lines_of(files):
    tokens = [token for file in files for token in tokenize.tokenize(iter(file.read_bytes().splitlines(True)).__next__)]
    words = [token.string.strip("# ") for token in tokens if token.type == tokenize.COMMENT and len(token.string) > 9]
    code = [token.line.strip() for token in tokens if token.type == tokenize.NEWLINE and len(token.line.strip()) > 9]
    lines = words + code[:: len(code) // len(words)]
    bytes_BT = torch.tensor([list(line.encode()[:LENGTH].ljust(LENGTH, b"\0")) for line in lines])
    return {"bytes": bytes_BT, "words": (torch.arange(len(lines)) < len(words)).long()}


torch.manual_seed(0)
model, files = LineClassifier(), sorted(Path(sysconfig.get_paths()["stdlib"], "asyncio").glob("*.py"))
known, asked = lines_of(files[0::2]), lines_of(files[1::2])
print("check:", cr.check(cr.Setup(model, loss, [{name: rows[::400] for name, rows in known.items()}])).verdict)
print(f"{len(known['bytes']):,} lines to train on, {len(asked['bytes']):,} to ask")
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(200):
    chosen = torch.randint(len(known["bytes"]), (64,))
    value = loss(model, {name: rows[chosen] for name, rows in known.items()})
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
right = (model(asked["bytes"]).argmax(dim=1) == asked["words"]).double().mean()
print("more than 85 of 100 lines of other files are right:", bool(right > 0.85))
