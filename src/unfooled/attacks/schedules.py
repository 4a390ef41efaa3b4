"""Schedules over a trial's steps, Adam for rows of different ages, and the scale of a box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..oracle import GradientQuery
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


def breadth(q: GradientQuery) -> Tensor:
    """The box's largest width, one for each row (B,); 1 where it is infinite: what constants made for [0, 1] scale by."""
    low, high = q.threat.box(q.x)
    width = (high - low).expand_as(q.x.flatten(1)).amax(1)
    return torch.where(width.isfinite(), width, 1)
