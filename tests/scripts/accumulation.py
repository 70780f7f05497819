"""Gradient accumulation over four micro-batches, with clipping."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
inputs = torch.randn(128, 5)
targets = inputs.sin().sum(-1, keepdim=True)
for _ in range(3):
    for index, (x, y) in enumerate(DataLoader(TensorDataset(inputs, targets), 8, shuffle=True)):
        loss = F.mse_loss(model(x), y) / 4
        loss.backward()
        if index % 4 == 3:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        print(float(loss).hex())
