"""Einstein summation: the gradient of an operand is an Einstein summation of g and the other operands."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()


def _einsum_jvp(y: Tensor, t: Mapping[str, Sequence[Tensor]], equation: str, tensors: Sequence[Tensor]) -> Tensor:
    """One term per operand, with its tangent in its place."""
    places = range(len(tensors))
    moved = ([t["tensors"][j] if j == i else tensors[j] for j in places] for i in places)
    return torch.stack([torch.einsum(equation, *operands) for operands in moved]).sum(0)


@rules.vjp(aten.einsum.default, jvp=_einsum_jvp)
def einsum(g: Tensor, y: Tensor, equation: str, tensors: Sequence[Tensor]) -> Mapping[str, Sequence[Tensor]]:
    """y_out = Σ Π tensors_i    dL/dtensors_i = Σ g_out Π tensors_j, j ≠ i, over the indices that operand i lacks"""
    operands, out = spelled_out(equation, [tensor.dim() for tensor in tensors])
    return {"tensors": [_operand(g, out, operands, tensors, index) for index in range(len(tensors))]}


def spelled_out(equation: str, dims: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the output: no ellipsis, no implied output.

    Torch's conventions: the dimensions of "..." are aligned at the last one and come first in an implied output, before
    the letters that occur once, in alphabetical order.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    spare = [letter for letter in string.ascii_letters if letter not in equation]
    widths = [dim - len(letters.replace("...", "")) for letters, dim in zip(operands, dims, strict=True)]
    rest = "".join(
        spare[: max((w for w, letters in zip(widths, operands, strict=True) if "..." in letters), default=0)]
    )
    full = [letters.replace("...", rest[len(rest) - width :]) for letters, width in zip(operands, widths, strict=True)]
    if arrow:
        return full, right.replace("...", rest)
    letters = left.replace("...", "").replace(",", "")
    return full, rest + "".join(letter for letter in sorted(set(letters)) if letters.count(letter) == 1)


def _operand(g: Tensor, out: str, operands: Sequence[str], tensors: Sequence[Tensor], index: int) -> Tensor:
    """The gradient of one operand. An index that it alone has was summed: every entry along it gets the same."""
    own, tensor = operands[index], tensors[index]
    others = [(letters, of) for i, (letters, of) in enumerate(zip(operands, tensors, strict=True)) if i != index]
    distinct = "".join(dict.fromkeys(own))
    present = [letter for letter in distinct if letter in out or any(letter in letters for letters, _ in others)]
    inputs = ",".join([out, *(letters for letters, _ in others)])
    gathered = torch.einsum(f"{inputs}->{''.join(present)}", g, *(of for _, of in others))
    for place, letter in enumerate(distinct):
        if letter not in present:
            gathered = gathered.unsqueeze(place)
    sizes = [tensor.shape[own.index(letter)] for letter in distinct]
    spread = gathered.expand([max(have, size) for have, size in zip(gathered.shape, sizes, strict=True)])
    return _on_diagonal(spread, distinct, own)


def _on_diagonal(gradient: Tensor, distinct: str, own: str) -> Tensor:
    """For an operand with a repeated index, such as "ii": the gradient is zero off its diagonal."""
    while len(distinct) < len(own):
        letter = next(letter for letter in distinct if own.count(letter) > distinct.count(letter))
        gradient = torch.diag_embed(gradient.movedim(distinct.index(letter), -1))
        distinct = distinct.replace(letter, "", 1) + letter + letter
    order = [place for letter in dict.fromkeys(own) for place, of in enumerate(distinct) if of == letter]
    places = [place for letter in dict.fromkeys(own) for place, of in enumerate(own) if of == letter]
    return gradient.permute([order[places.index(place)] for place in range(len(own))])
