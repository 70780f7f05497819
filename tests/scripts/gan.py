"""A GAN: two models, two optimizers, the generator's batch detached for the discriminator."""

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2))

    def forward(self, z):
        return self.net(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x)


G, D = Generator(), Discriminator()
optimizer_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
optimizer_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
real = torch.randn(128, 2) * 0.5 + 2
for _ in range(12):
    batch = real[torch.randint(128, (32,))]
    fake = G(torch.randn(32, 4))
    optimizer_d.zero_grad()
    yes, no = D(batch), D(fake.detach())
    loss_d = F.binary_cross_entropy_with_logits(yes, torch.ones_like(yes))
    loss_d = loss_d + F.binary_cross_entropy_with_logits(no, torch.zeros_like(no))
    loss_d.backward()
    optimizer_d.step()
    optimizer_g.zero_grad()
    score = D(fake)
    loss_g = F.binary_cross_entropy_with_logits(score, torch.ones_like(score))
    loss_g.backward()
    optimizer_g.step()
    print(float(loss_d).hex(), float(loss_g).hex())
