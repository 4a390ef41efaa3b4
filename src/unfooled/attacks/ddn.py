"""DDN: decoupled direction and norm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..losses import named
from ..models.access import Access
from ..norms import column, unit
from ..oracle import GradientQuery
from ..threats import L2, Threat
from .base import Attack, State, check_count, check_number
from .schedules import cosine
from .steering import breadth, slope

JUMP = 2.0  # the factor on the radius until looks have been on both sides of the boundary
FAR = 100.0  # times the radius: from out there the projection lands on the sphere, as far as the box lets it


@dataclass(frozen=True, kw_only=True)
class DDNState(State):
    """The radius, the smallest size that has fooled, and whether a point after the image has not."""

    radius: Tensor
    best: Tensor
    missed: Tensor


@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm: gradient steps for the direction, a radius of its own that shrinks while the point
    fools and grows while it does not. Rony et al. 2019, arXiv:1811.09600, Algorithm 1.

    The change is always brought to the radius, so no weight between size and loss is needed. What is not the paper's,
    for smaller changes where measured: the radius doubles or halves until looks have been on both sides of the boundary,
    so that any scale is found in a few; a step's length is a share of the radius; γ falls along a cosine to .001; a
    radius that shrinks never starts above the smallest size that has fooled. P is exact on sphere and box. Runs after the
    first begin with a step that is half random: four of 250 looks find smaller changes than one of 1,000.

        r ← r(1 - γ) where x fools, else r(1 + γ)
        δ ← P(r · (δ + α·r·g/|g|) / |…|),  g = ∇x J,  α from 1 to .01 along a cosine

    steps:   looks; from 500 on they are shared out over runs of 250 or more. 100: their table 1 has 100, 300 and 1,000.
    gamma:   the share by which the radius changes at first. 0.05: their section 3.
    radius:  the first radius, in widths of the box. 1.0: their section 3, for pixels in [0, 1].
    loss:    the loss J by name. cross_entropy: their Algorithm 1.

    Fails: where gradients are masked. A run follows one direction from one start; Targeted(DDN(), 4) finds smaller
    changes on robust models.
    """

    steps: int = 100
    gamma: float = 0.05
    radius: float = 1.0
    loss: str = "cross_entropy"

    name: ClassVar[str] = "ddn"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L2,)
    minimal: ClassVar[bool] = True
    enough: ClassVar[int | None] = 250

    def __post_init__(self) -> None:
        check_count(self, "steps")
        named(self.loss)
        check_number(self, "gamma", "(0, 1)")
        check_number(self, "radius", "(0, inf)")

    def init(self, q: GradientQuery, x: Tensor) -> DDNState:
        """From the image."""
        none = x.new_full((len(x),), torch.inf)
        return DDNState(x=x, radius=self.radius * breadth(q), best=none, missed=none < 0)

    def step(self, q: GradientQuery, s: DDNState) -> DDNState:
        """The formula."""
        seen = q.look(s.x, self.loss)
        size = q.threat.size(s.x - q.x)
        best = torch.where(seen.fooled, torch.minimum(size, s.best), s.best)
        gamma = cosine(self.gamma, 0.001, s.k, self.steps, size.dtype)
        rate = cosine(1.0, 0.01, s.k, self.steps, size.dtype)
        first = s.k == 0
        missed = s.missed | ~(seen.fooled | first)
        settled = missed & best.isfinite()
        less, more = torch.where(settled, 1 - gamma, 1 / JUMP), torch.where(settled, 1 + gamma, JUMP)
        radius = torch.where(seen.fooled, torch.minimum(s.radius, best) * less, s.radius * more)
        radius = torch.where(first, s.radius, radius)
        direction = unit(slope(q, seen.gradient, s.k).flatten(1))
        change = unit((s.x - q.x).flatten(1) + column(rate * radius) * direction)
        far = q.x + (column(FAR * radius) * change).view_as(q.x)
        return replace(s, x=q.threat.project(far, q.x, radius), radius=radius, best=best, missed=missed)
