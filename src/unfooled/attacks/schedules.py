"""Schedules over a trial's steps, and Adam for rows of different ages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import rows


def cosine(first: float, last: float, k: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """From first at k = 0 to last at k = steps along half a cosine: (B,) to (B,)."""
    return last + (first - last) * (1 + torch.cos(math.pi * k.to(dtype) / steps)) / 2


def adam(
    gradient: Tensor, mean: Tensor, square: Tensor, k: Tensor, betas: tuple[float, float] = (0.9, 0.999)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adam's moments after this gradient, the step of length one, and its divisor. Kingma & Ba 2015, arXiv:1412.6980.

    k: (B,) how many gradients each row has had before.
    """
    age = rows(k.to(gradient.dtype) + 1, gradient)
    mean = torch.lerp(gradient, mean, betas[0])
    square = torch.lerp(gradient * gradient, square, betas[1])
    divisor = (square / (1 - betas[1] ** age)).sqrt() + 1e-8
    return mean, square, mean / (1 - betas[0] ** age) / divisor, divisor
