"""What the learning rate does: one weight, one example, and a gradient of 500.

The prediction is w·x with x = 25, the truth is 15, and w = 1: the error is 10, the loss 100, and dL/dw = 2·10·25 = 500.
The weight that fits is 0.6, 0.4 away. At rate 0.01 the update is 0.01·500 = 5: it overshoots, and the next gradient
is larger. At 0.00001 it is 0.005: the loss falls, slowly. The loss is a parabola of curvature 2x² = 1250: a step goes
to its bottom at rate 1/1250 = 0.0008, and every rate above 2/1250 = 0.0016 diverges.

Expected output:
rate 0.01000   first update 0.01000 · 500 = 5
  w          1.00000   gradient          500.00000   loss            100.00000
  w         -4.00000   gradient       -5,750.00000   loss         13,225.00000
  w         53.50000   gradient       66,125.00000   loss      1,749,006.25000
  w       -607.75000   gradient     -760,437.50000   loss    231,306,076.56250
rate 0.00160   first update 0.00160 · 500 = 0.8
  w          1.00000   gradient          500.00000   loss            100.00000
  w          0.20000   gradient         -500.00000   loss            100.00000
  w          1.00000   gradient          500.00000   loss            100.00000
  w          0.20000   gradient         -500.00000   loss            100.00000
rate 0.00080   first update 0.00080 · 500 = 0.4
  w          1.00000   gradient          500.00000   loss            100.00000
  w          0.60000   gradient            0.00000   loss              0.00000
  w          0.60000   gradient            0.00000   loss              0.00000
  w          0.60000   gradient            0.00000   loss              0.00000
rate 0.00001   first update 0.00001 · 500 = 0.005
  w          1.00000   gradient          500.00000   loss            100.00000
  w          0.99500   gradient          493.75000   loss             97.51562
  w          0.99006   gradient          487.57812   loss             95.09297
  w          0.98519   gradient          481.48340   loss             92.73051
"""

import torch

X, TRUTH, START, STEPS = 25.0, 15.0, 1.0, 3


def train(rate: float) -> list[tuple[float, float, float]]:
    """(w, gradient, loss) before each of the steps of gradient descent, and after the last."""
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    history = []
    for _ in range(STEPS + 1):
        loss = (w * X - TRUTH) ** 2
        (gradient,) = torch.autograd.grad(loss, w)
        history.append((w.item(), gradient.item(), loss.item()))
        with torch.no_grad():
            w -= rate * gradient
    return history


def main() -> None:
    """Three steps at each of four rates."""
    for rate in (0.01, 0.0016, 0.0008, 0.00001):
        history = train(rate)
        print(f"rate {rate:<8.5f}  first update {rate:.5f} · {history[0][1]:.0f} = {rate * history[0][1]:.5g}")
        for w, gradient, loss in history:
            print(f"  w {w:16,.5f}   gradient {gradient:18,.5f}   loss {loss:20,.5f}")


if __name__ == "__main__":
    main()
