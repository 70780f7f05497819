"""A healthy Transformer language model: `check` says PASS, and how small an error it would have seen.

    chainrule check examples/check_gpt.py

Expected output:
...
PASS...
"""

import torch

import chainrule as cr
from chainrule.models import Transformer, next_token_loss


def setup() -> cr.Setup:
    """The set-up that `chainrule check` takes."""
    torch.manual_seed(0)
    model = Transformer(vocabulary=64, layers=3, heads=2, hidden=32, context=16, dropout=0.1)
    tokens = torch.randint(64, (4, 17))
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return cr.Setup(model, next_token_loss, [batch], optimizer, causal=True, batch_independent=True)


if __name__ == "__main__":
    print(cr.check(setup()))
