"""A model that keeps its last activations, and a list of all losses with their graphs cut."""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)


class Keeping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)
        self.activations = []

    def forward(self, x):
        self.hidden = self.norm(self.first(x)).relu()
        self.activations.append(self.hidden)
        return self.last(self.hidden)


model = Keeping()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs, labels = torch.randn(48, 6), torch.randint(2, (48, 1)).float()
for _ in range(8):
    model.activations.clear()
    optimizer.zero_grad()
    loss = F.binary_cross_entropy_with_logits(model(inputs), labels)
    loss = loss + 1e-4 * model.hidden.pow(2).mean()
    loss.backward()
    optimizer.step()
    print(float(loss).hex(), len(model.activations), float(model.norm.running_mean.sum()).hex())
