"""sigma-zero: sparse changes by a smooth stand-in for the L0 norm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..goals import Goal
from ..losses import margin
from ..models.access import Access
from ..norms import clip
from ..oracle import GradientQuery
from ..threats import L0, Threat
from .base import Attack, State, check_count, check_number, rows
from .schedules import adam, cosine
from .steering import slope, widths


def short_of(logits: Tensor, goal: Goal) -> Tensor:
    """The margin where it is below 0; nothing is gained beyond the boundary."""
    return margin(logits, goal).clamp(max=0)


def as_counted(q: GradientQuery, amount: Tensor) -> Tensor:
    """(B, *shape) summed over what counts as one: over a pixel's channels where the threat counts pixels."""
    if isinstance(q.threat, L0) and q.threat.pixels and amount.dim() > 2:
        return amount.sum(1, keepdim=True).expand_as(amount)
    return amount


@dataclass(frozen=True, kw_only=True)
class SigmaZeroState(State):
    """Adam's moments, and the size below which a component's change is put to zero."""

    mean: Tensor
    square: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class SigmaZero(Attack):
    """sigma-zero: Adam on margin plus a smooth count of the components that change, and a threshold that puts the
    smallest changes to zero. Cinà et al. 2024, arXiv:2402.01879, Algorithm 1.

    The threshold rises while the point fools, so that it loses components, and falls while it does not. Changes are in
    widths of the box. Each gradient is divided by its largest component.

        g = -∇ min(m, 0) + ∇ (1/d) Σ δ²/(δ² + σ);  δ ← clip(δ - η·Adam(g/|g|_∞));  δ_i ← 0 where |δ_i| < τ
        τ ← τ + t·η where x fools, else τ - t·η;  η from 1 to .1 along a cosine

    steps:      looks; from 1,000 on they are shared out over runs of 500 or more. 1000: their section 3, in one run.
    rate:       the first η. 1.0: their section 3.
    sigma:      the smoothness of the count. 0.001: their section 3.
    threshold:  the first τ. 0.3: their section 3.
    change:     the speed t of the threshold. 0.01: their section 3.

    Where the threat counts pixels, count and threshold go by the Euclidean size of a pixel's change. Runs after the first
    begin with a gradient that is half random: two of 500 looks find smaller changes than one of 1,000.

    Fails: in few steps; where gradients are masked.
    """

    steps: int = 1000
    rate: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    change: float = 0.01

    name: ClassVar[str] = "sigma-zero"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L0,)
    minimal: ClassVar[bool] = True
    enough: ClassVar[int | None] = 500

    def __post_init__(self) -> None:
        check_count(self, "steps")
        for name in ("rate", "sigma", "threshold", "change"):
            check_number(self, name, "(0, inf)")

    def init(self, q: GradientQuery, x: Tensor) -> SigmaZeroState:
        """From the image."""
        zero = torch.zeros_like(x)
        return SigmaZeroState(x=x, mean=zero, square=zero, threshold=x.new_full((len(x),), self.threshold))

    def step(self, q: GradientQuery, s: SigmaZeroState) -> SigmaZeroState:
        """The formula, in widths of the box."""
        seen = q.look(s.x, short_of)
        width = widths(q)
        delta = torch.where(width > 0, (s.x - q.x) / width, 0)
        square_size = as_counted(q, delta * delta)
        share = as_counted(q, torch.ones_like(delta)) / delta[0].numel()
        count = 2 * delta * self.sigma / (square_size + self.sigma).square() * share
        uphill = torch.where(rows(seen.fooled, delta), seen.gradient, slope(q, seen.gradient, s.k))
        gradient = torch.where(width > 0, count - uphill * width, 0)
        peak = gradient.flatten(1).abs().amax(1)
        gradient = gradient / rows(torch.where(peak > 0, peak, 1), gradient)
        mean, square, step, _ = adam(gradient, s.mean, s.square, s.k)
        rate = cosine(self.rate, self.rate / 10, s.k, self.steps, delta.dtype)
        moved = s.x - rows(rate, delta) * step * width
        moved = clip(moved.flatten(1), q.threat.box(q.x)).view_as(moved)
        threshold = s.threshold + torch.where(seen.fooled, 1, -1) * self.change * rate
        threshold = threshold.clamp(0, 1)
        size = as_counted(q, ((moved - q.x) / width.clamp(min=torch.finfo(width.dtype).tiny)).square()).sqrt()
        x = torch.where(size < rows(threshold, delta), q.x, moved)
        return replace(s, x=x, mean=mean, square=square, threshold=threshold)
