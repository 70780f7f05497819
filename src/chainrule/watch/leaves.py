"""The parameters of a loop in which no optimizer makes a step: whether something else, by hand, ever moves them."""

from __future__ import annotations

from torch import Tensor, nn

from chainrule.capture.tape_adjoints import leaves_of

SAMPLED = 64  # entries of each parameter that are compared


class Leaves:
    """What the first loss reached, as it was then; `stand` tells whether it is so still."""

    def __init__(self) -> None:
        self._first: list[tuple[Tensor, Tensor]] = []

    def stand(self, loss: Tensor) -> bool | None:
        """True if no parameter has moved since the first call, None at that call and if the loss reaches none."""
        if not self._first:
            reached = leaves_of(loss) if loss.grad_fn is not None else []
            self._first = [(leaf, _sampled(leaf).clone()) for leaf in reached if isinstance(leaf, nn.Parameter)]
            return None
        return all(bool((_sampled(leaf) == before).all()) for leaf, before in self._first)

    def forget(self) -> None:
        """An optimizer has made a step: no parameter is asked for any more."""
        self._first.clear()


def _sampled(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLED)]
