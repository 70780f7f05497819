"""The textbook's numerical gradient of attention's value matrix W_V, element by element.

Each element is raised by h, the whole model is run again, and the loss that comes out is compared with the loss before:
gradient = (L_plus - L_current) / h. No calculus at all; the chain rule's exact value stands beside it.

    chainrule numerical examples/numerical_gradient_of_w_v.py --parameter blocks.0.attention.value.weight --h 1e-5
"""

import torch

import chainrule as cr
from chainrule.models import Transformer, next_token_loss

W_V = "blocks.0.attention.value.weight"


def setup() -> cr.Setup:
    """The set-up that `chainrule numerical` takes: a Transformer small enough for one loss an element."""
    torch.manual_seed(0)
    model = Transformer(vocabulary=32, layers=2, heads=2, hidden=8, context=8)
    tokens = torch.randint(32, (2, 9))
    return cr.Setup(model, next_token_loss, [{"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}])


def main() -> None:
    """The first row of W_V, by the textbook's forward difference, by order 8, and by the chain rule."""
    given = setup()
    graph = cr.capture(given.model, given.loss, given.batches[0])
    exact = cr.value_and_grad(graph)[1][W_V]
    forward = cr.numerical_gradient(graph, W_V, method="forward", h=1e-5)
    order8 = cr.numerical_gradient(graph, W_V, method="order8")
    for column in range(4):
        entries = (forward.gradient[0, column], order8.gradient[0, column], exact[0, column])
        print(f"W_V[0, {column}]  forward {entries[0]:+.6e}  order 8 {entries[1]:+.12e}  chain rule {entries[2]:+.12e}")


if __name__ == "__main__":
    main()
