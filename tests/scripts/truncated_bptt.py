"""Truncated backpropagation through time: an LSTM whose state is detached between the chunks of one long text."""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)


class CharacterModel(nn.Module):
    def __init__(self, vocabulary=12, width=24):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids, state):
        hidden, state = self.lstm(self.embedding(ids), state)
        return self.head(hidden), state


model = CharacterModel()
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
text = torch.randint(12, (4, 121))
state = None
for start in range(0, 120, 12):
    x, y = text[:, start : start + 12], text[:, start + 1 : start + 13]
    logits, state = model(x, state)
    state = tuple(part.detach() for part in state)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(float(loss).hex())
