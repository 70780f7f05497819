"""A plain loop: classification, shuffled batches, dropout."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
inputs = torch.randn(96, 6)
labels = (inputs @ torch.randn(6, 3)).argmax(-1)
for _ in range(3):
    for x, y in DataLoader(TensorDataset(inputs, labels), 16, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        print(float(loss).hex())
