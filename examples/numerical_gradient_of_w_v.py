"""The textbook's numerical gradient of attention's value matrix W_V, element by element.

Each element is raised by h, the whole model is run again, and the loss that comes out is compared with the loss before:
gradient = (L_plus - L_current) / h. No calculus at all; the chain rule's exact value stands beside it.

    chainrule numerical examples/numerical_gradient_of_w_v.py --parameter blocks.0.attention.value.weight --h 1e-5

Expected output:
W_V[0, j]       forward        order 8               chain rule
      0   +9.501504e-04  +9.501457701e-04 ± ...e-12  +9.501457701e-04
      1   -4.021848e-03  -4.021837965e-03 ± ...e-12  -4.021837965e-03
      2   -2.434166e-03  -2.434165950e-03 ± ...e-12  -2.434165950e-03
      3   -1.429146e-03  -1.429147633e-03 ± ...e-12  -1.429147633e-03
"""

import torch

import chainrule as cr
from chainrule.models import Transformer, next_token_loss

W_V = "blocks.0.attention.value.weight"


def setup() -> cr.Setup:
    """The set-up that `chainrule numerical` takes: a Transformer small enough for one loss an element."""
    torch.manual_seed(0)
    model = Transformer(vocabulary=32, layers=2, heads=2, hidden=8, context=8).double()
    tokens = torch.randint(32, (2, 9))
    return cr.Setup(model, next_token_loss, [{"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}])


def main() -> None:
    """The first row of W_V, by the textbook's forward difference, by order 8, and by the chain rule."""
    given = setup()
    graph = cr.capture(given.model, given.loss, given.batches[0])
    exact = cr.value_and_grad(graph)[1][W_V]
    forward = cr.numerical_gradient(graph, W_V, method="forward", h=1e-5)
    order8 = cr.numerical_gradient(graph, W_V, method="order8")
    print("W_V[0, j]       forward        order 8               chain rule")
    for j in range(4):
        ours, bar = order8.gradient[0, j], order8.bar[0, j]
        print(f"      {j}   {forward.gradient[0, j]:+.6e}  {ours:+.9e} ± {bar:.0e}  {exact[0, j]:+.9e}")


if __name__ == "__main__":
    main()
