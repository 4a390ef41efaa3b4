"""Margin decomposition: PGD that climbs the two terms of the margin one at a time first."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from ..goals import Goal, pick, rival
from ..models.access import Access
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, State, check_count, rows

SCALES = {"margin": lambda logits: logits, "probability_margin": lambda logits: logits.softmax(1)}


@dataclass(frozen=True)
class MD(Attack):
    """Margin decomposition: PGD on one term of the margin, then on all of it. Ma et al. 2023, arXiv:2006.13726, Algorithm 1.

    Where the two terms' gradients differ much in size, the larger drowns the other and the margin's own gradient
    misleads. So the first half of the steps follows one term alone: -z_y in a first trial, the best other z_i in the
    next, and so on in turns; the second half follows the margin. The step falls as a cosine from 2·eps in each half.

        x ← P(x + α_k · argmax over |d| ≤ 1 of <∇x m, d>),  α_k = eps · (1 + cos(2πk/steps))

    steps:  looks per trial. 100: the authors' code.
    loss:   margin, of logits (MD), or probability_margin, of softmax shares (PMA, arXiv:2411.15210).

    Fails: from one start alone; give it two trials, restarts:count=2(md), so that each term has its turn.
    """

    steps: int = 100
    loss: str = "margin"

    name: ClassVar[str] = "md"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        if self.loss not in SCALES:
            raise must_be("MD", "loss", " or ".join(map(repr, SCALES)), self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> State:
        """From a random point of the set."""
        return State(x=q.threat.sample(x, q.uniform, q.normal))

    def step(self, q: GradientQuery, s: State) -> State:
        """One ascent on a term or on the margin."""
        early, second = 2 * s.k < self.steps, q.restart % 2 == 1

        def loss(logits: Tensor, goal: Goal) -> Tensor:
            values = SCALES[self.loss](logits)
            own = pick(values, goal.label)
            other = rival(values, goal.label) if goal.toward is None else pick(values, goal.toward)
            return torch.where(early & second, other, torch.where(early, -own, other - own))

        half = max(self.steps / 2, 1)
        length = q.threat.eps * (1 + torch.cos(math.pi * (s.k % half) / half)).to(s.x)
        direction = q.threat.steepest(q.look(s.x, loss).gradient, s.x, length)
        return replace(s, x=q.threat.project(s.x + rows(length, s.x) * direction, q.x))
