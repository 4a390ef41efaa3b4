"""Carlini & Wagner's attack on the Euclidean norm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import must_be
from ..models.access import Access
from ..oracle import GradientQuery, Look
from ..threats import L2, Threat
from .base import Attack, State, check_count, check_number, rows, where
from .schedules import adam
from .steering import widths

ENOUGH = 50  # iterations that a search step should have: Adam needs most of them to reach a robust model's boundary
LOOKED_OVER = 20  # iterations at least over which an objective must have fallen: fewer say more of Adam than of it


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerState(State):
    """Adam's averages, and where the search for c stands."""

    mean: Tensor
    square: Tensor
    iteration: Tensor  # in this search step
    searched: Tensor  # search steps ended
    found: Tensor  # this c has fooled
    mark: Tensor  # the objective at the last check
    c: Tensor
    low: Tensor  # the largest c that did not fool
    high: Tensor  # the smallest that did


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Carlini & Wagner's L2 attack: change and margin minimised together by Adam, their balance c found
    by bisection. Carlini & Wagner 2017, arXiv:1608.04644, section VI-A.

    Each search step minimises from the image with its own c. If any of its points fooled, c goes down, else up: tenfold
    until it fools, then by halves. A search step ends early where the objective has stopped falling. Changes are in
    units of the box's width. After each Adam step the point is clipped to the box (their section V-B's projected
    descent) instead of their tanh: that cannot move a component at the box's wall, and needs two walls.

        minimise |x - x₀|² + c · max(z_y - max over i ≠ y of z_i, -κ);  towards t: max over i ≠ t of z_i - z_t

    steps:          looks per trial, all search steps together. 9,000: 9 of 1,000, where the authors' code allows 10,000
                    and ends most of them early. Fewer than 50 for each search step mean fewer search steps, from a higher c.
    search_steps:   values of c. 9: the authors' code.
    learning_rate:  Adam's, as a share of the box's width. 0.01: the authors' code.
    initial_c:      the first c. 0.001: the authors' code.
    confidence:     κ: the margin that an answer must have to count. 0: the authors' code.
    abort_early:    end a search step whose objective falls by less than 0.01 % in a tenth of its iterations (20 at
                    least). True: the authors' code.

    Fails: it is dear; where gradients are masked or the logits saturate, the margin's slope is lost.
    """

    steps: int = 9000
    search_steps: int = 9
    learning_rate: float = 0.01
    initial_c: float = 0.001
    confidence: float = 0.0
    abort_early: bool = True

    name: ClassVar[str] = "cw"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L2,)
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_count(self, "search_steps")
        check_number(self, "learning_rate", "(0, inf)")
        check_number(self, "initial_c", "(0, inf)")
        check_number(self, "confidence", "[0, inf)")
        if not isinstance(self.abort_early, bool):
            raise must_be("CarliniWagner", "abort_early", "true or false", self.abort_early)

    @property
    def searches(self) -> int:
        """Search steps that there are looks for."""
        return min(self.search_steps, max(1, self.steps // ENOUGH))

    @property
    def first_c(self) -> float:
        """The first c: a search cut short leaves out the lowest, at most up to 10."""
        cut = self.search_steps - self.searches
        return max(self.initial_c, min(10.0, self.initial_c * 10.0**cut))

    def init(self, q: GradientQuery, x: Tensor) -> CarliniWagnerState:
        """From the image."""
        zero, none = x.new_zeros(len(x)), torch.zeros_like(x)
        return CarliniWagnerState(
            x=x, mean=none, square=none, iteration=zero.long(), searched=zero.long(), found=zero > 0,
            mark=zero + torch.inf, c=zero + self.first_c, low=zero, high=zero + torch.inf, done=zero > 0,
        )  # fmt: skip

    def step(self, q: GradientQuery, s: CarliniWagnerState) -> CarliniWagnerState:
        """One step of Adam; at its end, a search step gives way to the next, from the image."""
        if self.confidence > q.goal.confidence:  # then the engine, too, takes only confident points
            q = replace(q, goal=replace(q.goal, confidence=self.confidence))
        seen = q.look(s.x, "margin")
        objective, x, mean, square = self._descend(q, s, seen)
        found, iteration = s.found | seen.fooled, s.iteration + 1
        each = self.steps // self.searches
        check = iteration % max(LOOKED_OVER, each // 10) == 0
        ended = (iteration >= each) | (check & (objective > 0.9999 * s.mark) & self.abort_early)
        low = torch.where(ended & ~found, s.c, s.low)
        high = torch.where(ended & found, s.c, s.high)
        c = torch.where(high.isinf(), 10 * s.c, (low + high) / 2)
        done = s.searched + ended >= self.searches
        last = s.x if not q.goal.confidence else torch.where(rows(seen.fooled, x), s.x, q.x)
        none = torch.zeros_like(x)
        x, mean, square = where(ended, (q.x, none, none), (x, mean, square))
        return replace(
            s, x=torch.where(rows(done, x), last, x), mean=mean, square=square, low=low, high=high, done=done,
            iteration=torch.where(ended, 0, iteration), searched=s.searched + ended, found=found & ~ended,
            mark=torch.where(ended, torch.inf, torch.where(check, objective, s.mark)), c=torch.where(ended, c, s.c),
        )  # fmt: skip

    def _descend(self, q: GradientQuery, s: CarliniWagnerState, seen: Look) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The objective at x, the next point, and Adam's averages, in units of the box's width."""
        width = widths(q)
        span = width.flatten(1).amax(1).clamp(min=torch.finfo(width.dtype).tiny)
        change = (s.x - q.x) / rows(span, s.x)
        lack = torch.where(seen.fooled, 0, q.goal.confidence - seen.loss)
        objective = change.flatten(1).square().sum(1) + s.c * lack
        slope, blank = seen.gradient, (q.threat.dual(seen.gradient) == 0) & ~seen.fooled
        if bool(blank.any()):  # nothing to go by: any direction is better than none, another in each search step
            slope = torch.where(rows(blank, slope), q.normal(s.searched), slope)
        gradient = (2 * change / rows(span, s.x) - rows(torch.where(seen.fooled, 0, s.c), s.x) * slope) * width
        mean, square, step, _ = adam(gradient, s.mean, s.square, s.iteration)
        return objective, q.threat.project(s.x - self.learning_rate * width * step, q.x), mean, square
