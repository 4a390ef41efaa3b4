"""alpha-CROWN: the slopes of the lines are chosen by gradient, for each function that is to be bounded."""

from __future__ import annotations

import torch
from torch import Tensor

from .bounds import Bounds, lines_of
from .linear import Slopes, least_logits
from .operations import Elementwise

MEMORY = 1 << 31  # bytes at a time
KEPT = 16  # tensors of the size of all slopes, with what torch keeps for gradients
DECAY = 0.98  # of the learning rate, for each step


def optimised(found: Bounds, rows: Tensor, steps: int, rate: float) -> Tensor:
    """As `_optimised`, for as many images at a time as memory has room for."""
    numbers = sum(step.shape.numel() for step in found.network.steps if isinstance(step.operation, Elementwise))
    each = max(1, MEMORY // (8 * KEPT * rows.shape[1] * max(1, numbers)))
    slices = [slice(start, min(start + each, len(rows))) for start in range(0, len(rows), each)]
    return torch.cat([_optimised(found, rows[some], some, steps, rate) for some in slices])


def _optimised(found: Bounds, rows: Tensor, images: slice, steps: int, rate: float) -> Tensor:
    """Lower bounds (n, rows) of linear functions of the logits (n, rows, classes): the usual ones, or better.

    Adam on the slopes of the lines under and over every curve that is bent, each function with slopes of its own. Every slope
    is sound, and the best bound seen is kept. Xu et al. 2021, arXiv:2011.13824.
    """
    best = least_logits(found, rows, images)
    slopes, free, bent = _start(found, rows, images)
    if not free:
        return best
    optimizer = torch.optim.Adam(free, lr=rate)
    for _ in range(steps):
        with torch.enable_grad():
            bound = least_logits(found, rows, images, slopes)
            gradients = torch.autograd.grad(-bound.sum(), free)
        best = torch.maximum(best, bound.detach())
        for slope, gradient, where in zip(free, gradients, bent, strict=True):
            slope.grad = gradient * where
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= DECAY
        _within(found, slopes)
    return torch.maximum(best, least_logits(found, rows, images, slopes).detach())


def _start(found: Bounds, rows: Tensor, images: slice) -> tuple[Slopes, list[Tensor], list[Tensor]]:
    """The usual slopes of each function, and those of them that are free: over a ReLU the chord is best.

    Also where the curve is bent, for each of the free ones: elsewhere the usual slope is best.
    """
    slopes: Slopes = {}
    free: list[Tensor] = []
    bent: list[Tensor] = []
    for at, step in enumerate(found.network.steps, 1):
        if not isinstance(step.operation, Elementwise):
            continue
        lines = lines_of(found, at)
        apart = (lines.under[0] != lines.over[0])[images, None]
        if not bool(apart.any()):  # nowhere bent
            continue
        shape = (-1, rows.shape[1], *found.network.shape_of(at))
        under, over = (line[0][images, None].expand(shape).clone() for line in (lines.under, lines.over))
        slopes[at] = (under, over)
        convex = step.operation.curve.convex
        mine = [under] if convex is True else [over] if convex is False else [under, over]
        free += [slope.requires_grad_() for slope in mine]
        bent += [apart] * len(mine)
    return slopes, free, bent


def _within(found: Bounds, slopes: Slopes) -> None:
    """No slope that the curve does not have."""
    for at, pair in slopes.items():
        operation = found.network.steps[at - 1].operation
        assert isinstance(operation, Elementwise)
        for slope in pair:
            slope.data.clamp_(operation.curve.flattest, operation.curve.steepest)
