"""The largest of a few sizes of a threat at which each image is proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def largest(
    proves: Callable[[Tensor, float], Tensor], sizes: Sequence[float], at_least: Tensor, below: Tensor
) -> Tensor:
    """By halving, for each of N images: the largest of the sizes at which it is proved, 0 where none is; (N,) float64.

    What is proved at a size is so at every smaller one: no more sizes are tried than that leaves open.

    proves:    of some of the images (n,) and a size, whether each is proved: (n,).
    sizes:     rising.
    at_least:  (N,) the number of a size at which the image is known to be proved; -1: of none.
    below:     (N,) the number of a size at which it is known not to be; len(sizes): of none.
    """
    held, not_ = at_least.clone(), below.clone()
    while bool((open_ := not_ - held > 1).any()):
        at = (held + not_) // 2
        for number in at[open_].unique().tolist():
            rows = (open_ & (at == number)).nonzero().squeeze(1)
            proved = proves(rows, sizes[number])
            held[rows[proved]] = number
            not_[rows[~proved]] = number
    known = torch.tensor([0.0, *sizes], dtype=torch.float64)
    return known[held + 1]
