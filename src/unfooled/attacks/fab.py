"""FAB: fast adaptive boundary; as `Targeted(FAB())` it is FAB-T."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from ..oracle import Access, GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, rows
from .deepfool import Boundary, DeepFoolState, boundary, check_options, no_order, rounding, unless_stuck


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
    first look's linear model: the paper halves the best distance so far, which a trial of its own does not know. Its
    final search is left out: it would shorten the change by less than 0.1 %.

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
        check_options("FAB", self.steps, 0.0, self.candidates)
        for name, low, high in (("alpha_max", 0, 1), ("eta", 1, float("inf")), ("beta", 0, 1)):
            got = getattr(self, name)
            if isinstance(got, bool) or not isinstance(got, int | float) or not low <= got <= high:
                raise must_be("FAB", name, f"a float in [{low}, {high}]", got)

    @property
    def passes(self) -> int:
        """One forward, and a backward pass for each candidate (a single one with an aim)."""
        return 1 + self.candidates

    def init(self, q: GradientQuery, x: Tensor) -> DeepFoolState:
        """From a copy of the image; see `DeepFool`."""
        return DeepFoolState(x=x.clone(), order=no_order(x, self.candidates))

    def step(self, q: GradientQuery, s: DeepFoolState) -> DeepFoolState:
        """The formula. Without an aim, the first look is at the runner-up's boundary alone."""
        near = boundary(q, s, self.beta)
        dual = q.threat.dual(near.w)
        near = replace(near, lack=near.lack + rounding(q, near.x) * dual)
        x = self._between(q, near)
        moves = near.fooled | ((dual > 0) & (x != s.x).flatten(1).any(1))
        x = unless_stuck(q, s, moves, x)
        apart = (s.k == 0) & (q.restart > 0) & (dual > 0)
        if bool(apart.any()):
            half = torch.where(apart, near.lack.abs() / dual, 0) / 2
            start = q.threat.sample(q.x, lambda: q.uniform(s.k), lambda: q.normal(s.k), half)
            x = torch.where(rows(apart, x), start, x)
        return replace(s, x=x, order=near.order)

    def _between(self, q: GradientQuery, near: Boundary) -> Tensor:
        """The point between the two projections on the boundary, both made in one call."""
        points, w = torch.cat([near.x, q.x]), torch.cat([near.w, near.w])
        from_image = near.lack + (near.w * (near.x - q.x)).flatten(1).sum(1)
        d = q.threat.hyperplane(points, w, torch.cat([near.lack, from_image]))
        size, of_image = q.threat.size(d).clamp(min=torch.finfo(d.dtype).tiny).chunk(2)
        alpha = rows((size / (size + of_image)).clamp(max=self.alpha_max), q.x)
        point, image = (points + self.eta * d).chunk(2)
        return q.threat.project(torch.lerp(point, image, alpha), q.x)
