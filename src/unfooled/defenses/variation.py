"""Total-variation minimisation as a defense: an image put together again from some of its pixels."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import must_be
from .base import Backward, Defense
from .filters import height_and_width, is_number


class TotalVariation(Defense):
    """The smoothest image that agrees with a random half of the pixels.

        minimise over z   ||(1 - X) (z - x)||₂ + weight · TV₂(z)
        TV₂(z) = Σ over channels of Σᵢ ||z[i, :] - z[i-1, :]||₂ + Σⱼ ||z[:, j] - z[:, j-1]||₂

    drop:      the probability that X is 1, so that a pixel is not kept; drawn anew for each pixel in each pass.
    weight:    lambda_TV. Guo et al. 2018, arXiv:1711.00117: drop 0.5, weight 0.03, for photographs.
    steps:     of the solver, Chambolle & Pock 2011 (J. Math. Imaging Vis. 40), algorithm 1. At 28×28 pixels 20 steps come
               within 0.5 % of the lowest objective.
    backward:  `identity` by default: Athalye et al. 2018, arXiv:1802.00420, section 5.2.2, broke it with that. `exact`
               differentiates the steps: at twice the cost it is weaker, since each draw shows it half of the pixels.

    Guo et al. 2018. Random: average gradients over draws.
    """

    name: ClassVar[str] = "tv"
    random: ClassVar[bool] = True

    def __init__(
        self, drop: float = 0.5, weight: float = 0.03, steps: int = 20, backward: Backward = "identity"
    ) -> None:
        super().__init__(backward)
        if not is_number(drop) or not 0 <= drop < 1:
            raise must_be("TotalVariation", "drop", "a float in [0, 1)", drop)
        if not is_number(weight) or not 0 < weight < math.inf:
            raise must_be("TotalVariation", "weight", "a float above 0", weight)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise must_be("TotalVariation", "steps", "an int of at least 1", steps)
        self.drop, self.weight, self.steps = float(drop), float(weight), steps

    def transform(self, images: Tensor) -> Tensor:
        """Drop pixels of (N, …, H, W) and fill them in."""
        height_and_width(images)
        kept = (torch.rand_like(images) >= self.drop).to(images.dtype)
        return smoothest(images, kept, self.weight, self.steps)

    def extra_repr(self) -> str:
        """For printing."""
        return f"drop={self.drop:g}, weight={self.weight:g}, steps={self.steps}"


def smoothest(images: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """The minimum of `objective` for images x and pixels kept (N, …, H, W), approached in so many steps.

    No pixel leaves the range of its image.
    """
    x, mask = (given.flatten(1, -3) if given.dim() > 3 else given[:, None] for given in (images, kept))
    low, high = (bound.detach()[:, None, None, None] for bound in x.flatten(1).aminmax(dim=1))
    held = mask * x
    z = _filled(held, mask)
    ahead, down, across = z, torch.zeros_like(z[..., 1:, :]), torch.zeros_like(z[..., 1:])
    step = PACE / weight  # of z; that of the duals is 1 / (8 step): the differences have a norm of 8 at most, squared
    for _ in range(steps):
        down = _shortened(down + (ahead[..., 1:, :] - ahead[..., :-1, :]) / (8 * step), weight, -1)
        across = _shortened(across + (ahead[..., 1:] - ahead[..., :-1]) / (8 * step), weight, -2)
        moved = z + step * (F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)))
        moved = moved + step * (F.pad(across, (0, 1)) - F.pad(across, (1, 0)))
        off = mask * moved - held
        length = off.flatten(1).square().sum(1).clamp_min(TINY).sqrt()[:, None, None, None]
        moved = moved - off * (step / length).clamp_max(1)
        z, ahead = moved, 2 * moved - z
    return torch.minimum(torch.maximum(z, low), high).view_as(images)


PACE = 0.1  # the step times the weight: of 0.03 to 10, the one that came nearest in 20 steps on Fashion-MNIST
TINY = 1e-20


def objective(z: Tensor, images: Tensor, kept: Tensor, weight: float) -> Tensor:
    """What is minimised: z, images and pixels kept (N, …, H, W) to (N,)."""
    off = (kept * (z - images)).flatten(1).norm(dim=1)
    down, across = z.diff(dim=-2).norm(dim=-1), z.diff(dim=-1).norm(dim=-2)
    total: Tensor = off + weight * (down.flatten(1).sum(1) + across.flatten(1).sum(1))
    return total


def _shortened(dual: Tensor, length: float, axis: int) -> Tensor:
    """Vectors along an axis, none longer than that."""
    norm = dual.square().sum(axis, keepdim=True).clamp_min(TINY).sqrt()
    return dual * (length / norm).clamp_max(1)


def _filled(held: Tensor, mask: Tensor) -> Tensor:
    """What to begin with: a pixel that is not kept takes the mean of those kept round it (5×5), else of the image."""
    around = F.avg_pool2d(mask, 5, 1, 2, count_include_pad=False)
    mean = F.avg_pool2d(held, 5, 1, 2, count_include_pad=False) / around.clamp_min(1e-6)
    whole = held.flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
    mean = torch.where(around > 0, mean, whole[:, None, None, None])
    return held + (1 - mask) * mean
