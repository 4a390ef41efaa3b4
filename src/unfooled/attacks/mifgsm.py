"""Momentum iterative FGSM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..losses import named
from ..models.access import Access
from ..oracle import GradientQuery
from ..threats import L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows


@dataclass(frozen=True, kw_only=True)
class MomentumState(State):
    """The running sum of gradients."""

    momentum: Tensor


@dataclass(frozen=True)
class MIFGSM(Attack):
    """Momentum iterative FGSM: steps along a decaying sum of normalised gradients. Dong et al.
    2018, arXiv:1710.06081, Algorithm 1.

    Each gradient is divided by its own L1 norm, so that all steps weigh alike; the sum carries a row through bumps of
    the loss, and makes points that fool other models too.

        g ← μ·g + ∇x J / |∇x J|₁;  x ← P(x + (eps/steps) · argmax over |d| ≤ 1 of <g, d>)

    steps:  looks per trial. 10: their section 4.1.
    decay:  the factor μ. 1.0: their section 4.1.
    loss:   the loss J by name.

    Fails: it is made to transfer, not to be strong against one model: its step never shrinks; APGD finds more.
    """

    steps: int = 10
    decay: float = 1.0
    loss: str = "cross_entropy"

    name: ClassVar[str] = "mi-fgsm"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        named(self.loss)
        check_number(self, "decay", "[0, inf)")

    def init(self, q: GradientQuery, x: Tensor) -> MomentumState:
        """From the image."""
        return MomentumState(x=x, momentum=torch.zeros_like(x))

    def step(self, q: GradientQuery, s: MomentumState) -> MomentumState:
        """The formula; a gradient of zero adds nothing."""
        gradient = q.look(s.x, self.loss).gradient
        length = gradient.flatten(1).abs().sum(1)
        momentum = self.decay * s.momentum + gradient / rows(torch.where(length > 0, length, 1), gradient)
        step = q.threat.eps / self.steps
        x = q.threat.project(s.x + step * q.threat.steepest(momentum, s.x, step), q.x)
        return replace(s, x=x, momentum=momentum)
