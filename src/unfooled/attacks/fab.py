"""FAB: fast adaptive boundary; as `Targeted(FAB())` it is FAB-T."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..models.access import Access
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, check_count, check_number, rows
from .deepfool import (
    Boundary,
    DeepFoolState,
    boundary,
    either,
    no_order,
    rounding,
    shortfall,
    unless_stuck,
)

FINAL = 3  # looks of the final search: their section 3.3


@dataclass(frozen=True, kw_only=True)
class FABState(DeepFoolState):
    """The smallest point that fools so far, and the final search between it and the image, in shares of its change."""

    adversarial: Tensor
    size: Tensor  # of its change; inf: there is none
    low: Tensor  # the largest share known not to fool, and what the margin lacks there
    low_short: Tensor
    high: Tensor  # the smallest known to fool
    high_short: Tensor


@dataclass(frozen=True)
class FAB(Attack):
    """Fast adaptive boundary: steps to the boundary, drawn towards the image, and back inside from behind it.
    Croce & Hein 2020, arXiv:1907.02044, Algorithm 1.

    The model is made linear at each point; the point and the image are both projected, exactly within the box, on the
    nearest boundary of the linear model, and the step goes between the two projections, a little beyond. From a point
    that fools, the next step starts a tenth nearer to the image. Towards a class (FAB-T: `Targeted(FAB(), k=9)`) only
    that class's boundary counts: one backward pass a step instead of one for each class.

        π = {z: <w, z - x> = z_y - z_l}, w = ∇(z_l - z_y);  x ← x₀ + β(x - x₀) where x fools
        d = proj_π(x) - x,  d₀ = proj_π(x₀) - x₀,  α = min(|d| / (|d| + |d₀|), α_max)
        x ← clip((1 - α)(x + η·d) + α(x₀ + η·d₀))

    Where x fools, π comes from the look at x itself, not from a second one at the point nearer to the image, so that
    each step has one look. A restart begins at a random point near the image, at most half as far as the boundary of the
    first look's linear model: the paper halves the best distance so far, which a trial of its own does not know. Where the
    answer must be one class, the image does not draw (α = 0) before a point fools: it would draw back every time out of
    the corner between that class and others. The last 3 looks, of 30 or more, search between the image and the best
    point by secants.

    steps:       looks per trial. 100: their section 4.
    alpha_max:   the most that the image draws. 0.1: their section 4.
    eta:         how far to go, as a share of the way to the boundary. 1.05: their section 4.
    beta:        the share of the change to start from behind the boundary. 0.9: their section 4.
    candidates:  classes compared without an aim, the true one among them. 10: all of CIFAR-10's, as theirs.

    Fails: where gradients are zero or point nowhere; it follows one boundary from one start, so restarts and targets
    help it.
    """

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    candidates: int = 10

    name: ClassVar[str] = "fab"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_count(self, "candidates", 2)
        check_number(self, "alpha_max", "[0, 1]")
        check_number(self, "eta", "[1, inf)")
        check_number(self, "beta", "[0, 1]")

    @property
    def passes(self) -> int:
        """One forward, and a backward pass for each candidate."""
        return 1 + self.candidates

    @property
    def aimed_passes(self) -> int:
        """One look."""
        return 2

    def init(self, q: GradientQuery, x: Tensor) -> FABState:
        """From a copy of the image; see `DeepFool`."""
        zero = x.new_zeros(len(x))
        return FABState(
            x=x.clone(), order=no_order(x, self.candidates), adversarial=x, size=zero + torch.inf,
            low=zero, low_short=zero, high=zero + 1, high_short=zero,
        )  # fmt: skip

    def step(self, q: GradientQuery, s: FABState) -> FABState:
        """The formula, and at the end the final search where there is something to search."""
        final = (s.k >= self.steps - min(FINAL, self.steps // 10)) & s.size.isfinite()
        return either(q, final, self._search, self._walk, s)

    def _walk(self, q: GradientQuery, s: FABState) -> FABState:
        """The formula."""
        near = boundary(q, s, self.beta)
        size, dual = q.threat.size(s.x - q.x), q.threat.dual(near.w)
        better = near.fooled & (size < s.size)
        near = replace(near, lack=near.lack + rounding(q, near.x) * dual)
        corner = s.size.isinf() & (q.goal.target is not None)  # must get behind several boundaries at once
        x = self._between(q, near, straight=corner)
        moves = near.fooled | ((dual > 0) & (x != s.x).flatten(1).any(1))
        x = unless_stuck(q, s, moves, x)
        apart = (s.k == 0) & (q.restart > 0) & (dual > 0)
        if bool(apart.any()):
            half = torch.where(apart, near.lack.abs() / dual, 0) / 2
            start = q.threat.sample(q.x, lambda: q.uniform(s.k), lambda: q.normal(s.k), half)
            x = torch.where(rows(apart, x), start, x)
        return replace(
            s, x=x, order=near.order, adversarial=torch.where(rows(better, x), s.x, s.adversarial),
            size=torch.where(better, size, s.size), high_short=torch.where(better, near.short, s.high_short),
            low_short=torch.where(s.k == 0, near.short, s.low_short),
        )  # fmt: skip

    def _search(self, q: GradientQuery, s: FABState) -> FABState:
        """One secant, by a forward pass."""
        share = _secant(s)
        logits = q.scores(_at(q, s, share))
        fooled, short = q.goal.fooled(logits), shortfall(q, logits)
        low, low_short = torch.where(fooled, s.low, share), torch.where(fooled, s.low_short, short)
        high, high_short = torch.where(fooled, share, s.high), torch.where(fooled, short, s.high_short)
        s = replace(s, low=low, low_short=low_short, high=high, high_short=high_short)
        return replace(s, x=_at(q, s, _secant(s)))

    def _between(self, q: GradientQuery, near: Boundary, straight: Tensor) -> Tensor:
        """The point between the two projections on the boundary, both made in one call; its own where `straight` (B,)."""
        points, w = torch.cat([near.x, q.x]), torch.cat([near.w, near.w])
        from_image = near.lack + (near.w * (near.x - q.x)).flatten(1).sum(1)
        d = q.threat.hyperplane(points, w, torch.cat([near.lack, from_image]))
        size, of_image = q.threat.size(d).clamp(min=torch.finfo(d.dtype).tiny).chunk(2)
        alpha = rows((size / (size + of_image)).clamp(max=self.alpha_max).masked_fill(straight, 0), q.x)
        point, image = (points + self.eta * d).chunk(2)
        return q.threat.project(torch.lerp(point, image, alpha), q.x)


def _secant(s: FABState) -> Tensor:
    """The share at which a margin linear between both ends would reach the goal, and a little more to be sure."""
    part = (s.low_short / (s.low_short - s.high_short)).nan_to_num(nan=0.5).clamp(0, 1)
    return s.low + (s.high - s.low) * (part + 0.05 * (1 - part))


def _at(q: GradientQuery, s: FABState, share: Tensor) -> Tensor:
    """The point at a share of the best change."""
    return q.threat.project(q.x + rows(share, s.x) * (s.adversarial - q.x), q.x)
