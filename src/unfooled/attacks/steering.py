"""What attacks steer by: a slope that leads somewhere in every row, and the box's widths, which steps are measured in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..norms import unit
from ..oracle import GradientQuery
from .base import rows


def kicked(q: GradientQuery, gradient: Tensor, k: Tensor) -> Tensor:
    """The gradients, with random ones in place of those that are zero: a row without a slope moves on by chance."""
    flat = (gradient == 0).flatten(1).all(1)
    return torch.where(rows(flat, gradient), q.normal(k, salt=7), gradient) if bool(flat.any()) else gradient


def slope(q: GradientQuery, gradient: Tensor, k: Tensor) -> Tensor:
    """For attacks that start at the image: `kicked`, and in a restart's first step half random.

    From the same image a restart would find the same point again. Components that may not change have no slope.
    """
    low, high = q.threat.box(q.x)
    free = (low < high).expand_as(q.x.flatten(1)).view_as(q.x)
    gradient = kicked(q, torch.where(free, gradient, 0), k)
    again = (q.restart > 0) & (k == 0)
    if not bool(again.any()):
        return gradient
    flat = gradient.flatten(1)
    chance = unit(torch.where(free, q.normal(0, salt=8), 0).flatten(1)) * flat.norm(dim=1, keepdim=True)
    return torch.where(rows(again, gradient), (flat + chance).view_as(gradient), gradient)


def widths(q: GradientQuery) -> Tensor:
    """How wide the box is in each component (B, *shape): 0 where the mask holds it, 1 where it has no end."""
    low, high = q.threat.box(q.x)
    width = high - low
    return torch.where(width.isfinite(), width, 1).expand_as(q.x.flatten(1)).view(q.x.shape)


def breadth(q: GradientQuery) -> Tensor:
    """The box's largest width, one for each row (B,): what constants made for [0, 1] scale by."""
    width = widths(q).flatten(1).amax(1)
    return torch.where(width > 0, width, 1)
