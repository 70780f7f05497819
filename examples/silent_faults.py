"""A training script with two silent faults: the loss falls, nothing raises.

The model ends in a softmax although the loss takes logits, and the gradients are never set back to zero.

    chainrule run examples/silent_faults.py

Expected output:
epoch 0: loss 1.3...
epoch 1: loss 1.3...
epoch 2: loss 1.2...
epoch 3: loss 1.2...
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(nn.Module):
    """Two layers; the second is followed by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(8, 32)
        self.out = nn.Linear(32, 4)

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """(B, 8) features to (B, 4) probabilities."""
        return torch.softmax(self.out(torch.relu(self.hidden(x_BF))), -1)


def main() -> None:
    """Train for four epochs."""
    torch.manual_seed(0)
    features_NF = torch.randn(256, 8)
    labels_N = (features_NF @ torch.randn(8, 4)).argmax(-1)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(4):
        for x_BF, y_B in DataLoader(TensorDataset(features_NF, labels_N), batch_size=32, shuffle=True):
            loss = F.cross_entropy(model(x_BF), y_B)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
