"""PDPGD: primal-dual proximal gradient descent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..goals import Goal
from ..losses import margin
from ..models.access import Access
from ..norms import clip
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows
from .schedules import adam
from .steering import breadth, slope

LIMIT = -math.log(1e-6)  # of the dual variable, either way
EMA = 0.9  # of the weight that the dual variable gives to the loss
INNER = 5  # proximal steps for one step of the primal variable


def soft(logits: Tensor, goal: Goal) -> Tensor:
    """A smooth hinge on the margin."""
    return -F.softplus(-margin(logits, goal))


@dataclass(frozen=True, kw_only=True)
class PDPGDState(State):
    """Adam's moments, the dual variable, and the weight of the loss that it stands for."""

    mean: Tensor
    square: Tensor
    dual: Tensor
    weight: Tensor


@dataclass(frozen=True)
class PDPGD(Attack):
    """Primal-dual proximal gradient descent: descent on loss and size together, the size by its proximal operator,
    their balance by a dual variable. Matyasko & Chau 2021, arXiv:2106.01538, Algorithm 2.

    While the point does not fool, the dual variable gives more weight to the loss; where it does, to the size. The
    proximal operator (for L1 soft thresholding) makes changes sparse where the norm does. Adam scales the components;
    the operator is applied in its metric, by a few fixed-point steps. Runs after the first begin with a gradient that is
    half random: two of 500 looks find smaller changes than one of 1,000.

        r = clip(δ - η·Adam(∇ softplus(-m)));  δ ← prox of (1 - w)/w · η · |.| at r;  λ ← λ ∓ θ,  w = EMA of σ(λ)

    steps:  looks; from 1,000 on they are shared out over runs of 500 or more. 500: their section 5.
    rate:   the first η, falling to a hundredth, in widths of the box. 0.1: their section 5.
    ratio:  the first weight of the size against the loss. 0.01: their section 5.
    pace:   the first step θ of the dual variable, falling to a tenth. 0.1: their section 5.

    Fails: in few steps; where gradients are masked. The balance is found late on some images: more steps help.
    """

    steps: int = 500
    rate: float = 0.1
    ratio: float = 0.01
    pace: float = 0.1

    name: ClassVar[str] = "pdpgd"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L1, L2, Linf)
    minimal: ClassVar[bool] = True
    enough: ClassVar[int | None] = 500

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "rate", "(0, inf)")
        check_number(self, "pace", "(0, inf)")
        check_number(self, "ratio", "(0, 1)")

    def init(self, q: GradientQuery, x: Tensor) -> PDPGDState:
        """From the image."""
        zero, dual = torch.zeros_like(x), x.new_full((len(x),), -math.log(self.ratio))
        return PDPGDState(x=x, mean=zero, square=zero, dual=dual, weight=dual.sigmoid())

    def step(self, q: GradientQuery, s: PDPGDState) -> PDPGDState:
        """The formula."""
        seen = q.look(s.x, soft)
        k, n = s.k.to(s.x.dtype), self.steps
        scale = breadth(q)
        mean, square, step, divisor = adam(-slope(q, seen.gradient, s.k) * rows(scale, s.x), s.mean, s.square, s.k)
        rate = self.rate * 0.01 ** (k / n).clamp(max=1) * scale
        r = self._boxed(q, s.x - q.x - rows(rate, s.x) * step)
        largest = divisor.flatten(1).amax(1)
        weight = (1 - s.weight) / s.weight * rate / largest
        metric = divisor / rows(largest, divisor)
        delta = r
        for _ in range(INNER):
            delta = self._boxed(q, q.threat.prox(delta - metric * (delta - r), weight))
        theta = self.pace * (0.1 + 0.9 * (n - 1 - k).clamp(min=0) / max(n - 1, 1))
        dual = s.dual - theta * margin(seen.logits, q.goal).sign()
        dual = dual.clamp(-LIMIT, LIMIT)
        weight_of_loss = EMA * s.weight + (1 - EMA) * dual.sigmoid()
        return replace(s, x=q.x + delta, mean=mean, square=square, dual=dual, weight=weight_of_loss)

    @staticmethod
    def _boxed(q: GradientQuery, delta: Tensor) -> Tensor:
        return clip((q.x + delta).flatten(1), q.threat.box(q.x)).view_as(delta) - q.x
