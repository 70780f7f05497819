"""Warm-up and cosine decay by SequentialLR, stepped once per update; checkpoints are written."""

import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
warm, decay = LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, 16)
schedule = SequentialLR(optimizer, [warm, decay], milestones=[4])
inputs = torch.randn(64, 4)
targets = inputs.prod(-1, keepdim=True)
for _ in range(20):
    chosen = torch.randint(64, (16,))
    loss = F.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    print(float(loss).hex(), optimizer.param_groups[0]["lr"].hex())
if len(sys.argv) > 1:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, sys.argv[1])
