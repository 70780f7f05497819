"""The complex step: L'(0) = Im L(ih) / h, without subtraction, so h can be 2⁻¹⁰⁰ and the result is exact to rounding.

For a holomorphic L, L(ih) = L(0) + ih L'(0) - h² L''(0)/2 ...: with h² below rounding the imaginary part *is* the
derivative. It needs code that is holomorphic: `abs`, comparisons or `var` of a complex tensor either raise or silently
give another function. `compare.complex_forms` runs a graph with formulas that are right for complex arguments.

Source: W. Squire and G. Trapp, Using complex variables to estimate derivatives of real functions, SIAM Rev. 40 (1998)
110; J. R. R. A. Martins, P. Sturdza, J. J. Alonso, The complex-step derivative approximation, ACM TOMS 29 (2003) 245.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.errors import ChainruleError
from chainrule.numdiff.stencils import Estimate, Line, as_step

STEP = 2.0**-100
ROUNDING_MARGIN = 16.0


def complex_step(line: Line, h: float | Tensor = STEP) -> Estimate:
    """Im L(ih) / h, with a bar from a second step of 3h, whose imaginary parts round differently: 2 evaluations.

    `line` takes complex128 offsets (2, *K). Raises ChainruleError if its result is real: it drops the imaginary part.
    """
    h = as_step(h)
    offsets = torch.stack([h, 3 * h]) * 1j
    losses = line(offsets)
    if not losses.is_complex():
        raise ChainruleError(
            f"the complex step got losses of dtype {losses.dtype}, expected complex128: the function drops the "
            f"imaginary part (a comparison, an item(), a cast to float); use method='order8' instead"
        )
    first, second = losses.imag / torch.stack([h, 3 * h])
    unit = torch.finfo(torch.float64).eps / 2
    # One pair of roundings can agree by chance: the typical difference over all lines stands behind each of them.
    typical = (first - second).square().mean().sqrt()
    bar = ROUNDING_MARGIN * (unit * first.abs() + torch.maximum((first - second).abs(), typical))
    return Estimate(first, bar, h, losses.numel(), None)
