"""FMN: fast minimum norm, for every norm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..losses import margin
from ..models.access import Access
from ..norms import unit
from ..oracle import GradientQuery
from ..threats import L0, Threat
from .base import ANY_NORM, Attack, State, check_count, check_number, rows
from .schedules import cosine
from .steering import slope

FIRST = {"Linf": 3.0, "L2": 1.0, "L1": 1.0, "L0": 10.0}  # the first step, in lengths of the change: by measurement


@dataclass(frozen=True, kw_only=True)
class FMNState(State):
    """The radius, the smallest size that has fooled, and whether any point has."""

    radius: Tensor
    best: Tensor
    found: Tensor


@dataclass(frozen=True)
class FMN(Attack):
    """Fast minimum norm: steps up the margin inside a ball that is drawn tight round the boundary, in any norm.
    Pintor et al. 2021, arXiv:2102.12827, Algorithm 1.

    Until a point has fooled, the radius is that of the boundary in the model made linear; afterwards it shrinks where
    the point fools and grows where it does not. A step's length is a share of the change's own Euclidean length (of the
    radius at first), where the paper's is absolute: that fits any box, and gave smaller changes where measured. While
    nothing has fooled, the radius at most doubles, since a flat spot would send it out of the box.

        r ← |δ| + |m| / |∇m|_q before a point has fooled; then r(1 - γ) where x fools, else r(1 + γ)
        δ ← P_r(δ + α·|δ|₂·∇m/|∇m|₂),  m = max over i ≠ y of z_i - z_y,  γ and α falling along cosines

    steps:  looks per trial. 100: their section 4 has 30 to 1,000.
    gamma:  the share by which the radius changes at first, falling to .001. 0.05: their section 4.
    alpha:  the first step in lengths of the change, falling to a hundredth; None: 10 for L0, 3 for Linf, 1 for L2 and L1.

    Fails: where gradients are masked. For L0 sigma-zero and for L1 PDPGD find smaller changes.
    """

    steps: int = 100
    gamma: float = 0.05
    alpha: float | None = None

    name: ClassVar[str] = "fmn"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = ANY_NORM
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "gamma", "(0, 1)")
        if self.alpha is not None:
            check_number(self, "alpha", "(0, inf)", "none or a float in")

    def init(self, q: GradientQuery, x: Tensor) -> FMNState:
        """From the image."""
        none = x.new_full((len(x),), torch.inf)
        first = 1.0 if isinstance(q.threat, L0) else 0.0
        return FMNState(x=x, radius=torch.full_like(none, first), best=none, found=none < 0)

    def step(self, q: GradientQuery, s: FMNState) -> FMNState:
        """The formula."""
        seen = q.look(s.x, "margin")
        size = q.threat.size(s.x - q.x)
        best = torch.where(seen.fooled, torch.minimum(size, s.best), s.best)
        found = s.found | seen.fooled
        gradient = slope(q, seen.gradient, s.k)
        gamma = cosine(self.gamma, 0.001, s.k, self.steps, size.dtype)
        if isinstance(q.threat, L0):  # components are counted
            radius = self._count(s.radius, best, seen.fooled, gamma)
        else:
            grown = s.radius * (1 + gamma)
            linear = size + margin(seen.logits, q.goal).abs() / q.threat.dual(gradient)
            reached = torch.where(s.k == 0, linear, torch.maximum(torch.minimum(linear, 2 * s.radius), grown))
            radius = torch.where(found, grown, reached)
            radius = torch.where(seen.fooled, torch.minimum(s.radius * (1 - gamma), best), radius)
        first = FIRST[type(q.threat).__name__] if self.alpha is None else self.alpha
        length = torch.where(s.k == 0, radius, (s.x - q.x).flatten(1).norm(dim=1))
        length = length * cosine(first, first / 100, s.k, self.steps, size.dtype)
        z = s.x + rows(length, s.x) * unit(gradient.flatten(1)).view_as(gradient)
        return replace(s, x=q.threat.project(z, q.x, radius), radius=radius, best=best, found=found)

    def _count(self, radius: Tensor, best: Tensor, fooled: Tensor, gamma: Tensor) -> Tensor:
        """L0: by a share as elsewhere, but by one component at least."""
        less = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), best)
        more = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
        return torch.where(fooled, less, more).clamp(min=0)
