"""A model in torch.compile (its graph runs as aot_eager, so that no C++ compiler is needed)."""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))
compiled = torch.compile(model, backend="aot_eager")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
inputs, labels = torch.randn(32, 6), torch.randint(3, (32,))
for _ in range(6):
    optimizer.zero_grad()
    loss = F.cross_entropy(compiled(inputs), labels)
    loss.backward()
    optimizer.step()
    print(float(loss).hex())
