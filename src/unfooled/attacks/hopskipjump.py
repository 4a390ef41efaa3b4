"""HopSkipJump: to the nearest point of the decision boundary, by decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..models.access import Access
from ..norms import unit
from ..oracle import DecisionQuery
from ..threats import L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows
from .square import planes

START, SEARCH, ESTIMATE, JUMP = range(4)


@dataclass(frozen=True, kw_only=True)
class HopSkipJumpState(State):
    """What a row does at present and what it knows.

    phase:      (B,) START: looking for any point that fools; SEARCH: between the image and the anchor, for the boundary;
                ESTIMATE: round the anchor, for the boundary's normal; JUMP: along the normal, for the next anchor.
    turn:       (B,) int64 the iteration t, from 1.
    anchor:     (B, *shape) a point that fools; while estimating and jumping, one close to the boundary.
    low, high:  (B,) shares of the way from the image to the anchor: not fooled, fooled.
    reach:      (B,) how far the anchor was from the image before the search.
    asked, votes:  (B,) directions answered, and the sum of the answers ±1.
    toward, drift:  (B, *shape) the sums of the directions times their answers, and of the directions.
    size:       (B,) length of the jump.
    """

    phase: Tensor
    turn: Tensor
    anchor: Tensor
    low: Tensor
    high: Tensor
    reach: Tensor
    asked: Tensor
    votes: Tensor
    toward: Tensor
    drift: Tensor
    size: Tensor


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """HopSkipJump: walks along the decision boundary by an estimate of its normal. Chen et al. 2020, arXiv:1904.02144,
    Algorithm 2.

    It needs nothing but decisions. A random point that fools is drawn to the boundary by bisection; there, random
    directions of which the model says on which side they end add up to the normal; a jump along it, halved until it
    fools, and a bisection towards the image give the next boundary point. The sums are kept, never the directions.

        v ← Σ (φ_b - mean φ) u_b over B_t = samples · √t directions u_b of length δ = gamma · reach / d
        x ← bisect(x_0, x + ξ · v/|v|), ξ = |x - x_0| / √t halved until it fools (Linf: the sign of v)

    steps:    queries per trial. 5000: the middle one of the budgets in their table II (1K, 5K, 20K).
    samples:  directions in the first estimate. 100: the authors' code (github.com/Jianbo-Lab/HSJA, hsja.py).
    gamma:    the bisection ends at gamma / (d √d) of the way (Linf: gamma / d²). 1.0: the authors' code.

    Fails: it begins with a random point that fools, which with a target may take many queries or never come; estimates
    mislead where the boundary is rough at the scale of δ, or the model random.
    """

    steps: int = 5000
    samples: int = 100
    gamma: float = 1.0

    name: ClassVar[str] = "hopskipjump"
    access: ClassVar[Access] = Access.DECISION
    norms: ClassVar[tuple[type[Threat], ...]] = (L2, Linf)
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_count(self, "samples")
        check_number(self, "gamma", "(0, inf)")

    def init(self, q: DecisionQuery, x: Tensor) -> HopSkipJumpState:
        """Any point."""
        zero, none = x.new_zeros(len(x)), torch.zeros_like(q.trial)
        return HopSkipJumpState(
            x=start(q, none), phase=none + START, turn=none, anchor=x, low=zero, high=zero + 1, reach=zero,
            asked=none, votes=zero, toward=torch.zeros_like(x), drift=torch.zeros_like(x), size=zero,
        )  # fmt: skip

    def step(self, q: DecisionQuery, s: HopSkipJumpState) -> HopSkipJumpState:
        """Ask, take in the answer by what the row is doing, and choose what to ask next."""
        fooled = q.decide(s.x)
        doing = [s.phase == phase for phase in range(4)]
        s = self.arrived(q, s, (doing[START] | doing[JUMP]) & fooled)
        s = self.searched(q, s, doing[SEARCH], fooled)
        s = self.estimated(q, s, doing[ESTIMATE], fooled)
        s = self.missed(q, s, doing[JUMP] & ~fooled)
        return replace(s, x=self.asked_next(q, s))

    # --- what an answer tells --------------------------------------------------------------------

    def arrived(self, q: DecisionQuery, s: HopSkipJumpState, now: Tensor) -> HopSkipJumpState:
        """A start or a jump fools: search between the image and it."""
        return replace(
            s,
            phase=torch.where(now, SEARCH, s.phase),
            anchor=torch.where(rows(now, s.x), s.x, s.anchor),
            reach=torch.where(now, q.threat.size(s.x - q.x), s.reach),
            low=torch.where(now, 0, s.low),
            high=torch.where(now, 1, s.high),
        )

    def searched(self, q: DecisionQuery, s: HopSkipJumpState, now: Tensor, fooled: Tensor) -> HopSkipJumpState:
        """Halve the way; where it is short enough, its fooling end is the anchor, to estimate the normal at."""
        middle = (s.low + s.high) / 2
        low, high = torch.where(now & ~fooled, middle, s.low), torch.where(now & fooled, middle, s.high)
        found = now & (high - low <= self.tolerance(q))
        s = replace(s, low=low, high=high)
        if not bool(found.any()):
            return s
        anchor = torch.where(rows(found, s.x), end(q, s), s.anchor)
        return self.renewed(replace(s, anchor=anchor, high=torch.where(found, 1, high)), found)

    def renewed(self, s: HopSkipJumpState, now: Tensor) -> HopSkipJumpState:
        """Begin an estimate."""
        none = rows(now, s.x)
        return replace(
            s,
            phase=torch.where(now, ESTIMATE, s.phase),
            turn=s.turn + now.long(),
            asked=torch.where(now, 0, s.asked),
            votes=torch.where(now, 0, s.votes),
            toward=torch.where(none, 0, s.toward),
            drift=torch.where(none, 0, s.drift),
        )

    def estimated(self, q: DecisionQuery, s: HopSkipJumpState, now: Tensor, fooled: Tensor) -> HopSkipJumpState:
        """Add the direction to the sums; after the last one, jump."""
        answer = torch.where(now, 2.0 * fooled.to(s.x.dtype) - 1, 0)
        direction = torch.where(rows(now, s.x), (s.x - s.anchor) / rows(self.spread(q, s), s.x), 0)
        asked = s.asked + now.long()
        ready = now & (asked >= (self.samples * s.turn.double().sqrt()).long())
        return replace(
            s,
            phase=torch.where(ready, JUMP, s.phase),
            asked=asked,
            votes=s.votes + answer,
            toward=s.toward + rows(answer, s.x) * direction,
            drift=s.drift + direction,
            size=torch.where(ready, q.threat.size(s.anchor - q.x) / s.turn.clamp(min=1).sqrt(), s.size),
        )

    def missed(self, q: DecisionQuery, s: HopSkipJumpState, now: Tensor) -> HopSkipJumpState:
        """Halve the jump; where it is shorter than the search was exact, estimate anew."""
        s = replace(s, size=torch.where(now, s.size / 2, s.size))
        return self.renewed(s, now & (s.size < self.tolerance(q) * s.reach))

    # --- what to ask -----------------------------------------------------------------------------

    def asked_next(self, q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
        """The next point of each row; after the last query, the nearest known point that fools."""
        x, last = s.x, s.k + 1 == self.steps
        points = ((START, self.started), (SEARCH, middle), (ESTIMATE, self.near), (JUMP, self.jumped))
        for now, point in [(s.phase == phase, point) for phase, point in points] + [(last & (s.phase != START), end)]:
            if bool(now.any()):
                x = torch.where(rows(now, x), point(q, s), x)
        return x

    def started(self, q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
        """Any point."""
        return start(q, s.k + 1)

    def near(self, q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
        """The anchor and a random direction."""
        draw = q.normal(s.k + 1) if isinstance(q.threat, L2) else 2 * q.uniform(s.k + 1) - 1
        if q.threat.mask is not None:
            draw = draw * q.threat.mask.to(draw.device)
        direction = unit(draw.flatten(1)).view_as(draw)
        return q.threat.project(s.anchor + rows(self.spread(q, s), draw) * direction, q.x)

    def jumped(self, q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
        """The anchor and a jump along the normal, with the mean answer as baseline unless all answers agree."""
        mean = s.votes / s.asked.clamp(min=1)
        baseline = torch.where(mean.abs() == 1, 0, mean)
        normal = q.threat.steepest(s.toward - rows(baseline, s.x) * s.drift, s.anchor)
        return q.threat.project(s.anchor + rows(s.size, s.x) * normal, q.x)

    # --- scales ----------------------------------------------------------------------------------

    def tolerance(self, q: DecisionQuery) -> float:
        """Where a search ends, as a share of the way; never finer than the numbers are."""
        d = free(q)
        theta = self.gamma / (d * math.sqrt(d) if isinstance(q.threat, L2) else d * d)
        return max(min(theta, 1e-3), 4 * torch.finfo(q.x.dtype).eps)

    def spread(self, q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
        """The length δ of the directions: (B,); never less than the numbers can tell.

        The authors' code takes 0.1 of the box's width in the first turn; here boxes may differ by channel or be infinite.
        """
        d = free(q)
        finest = 8 * torch.finfo(q.x.dtype).eps * math.sqrt(d) * s.anchor.flatten(1).abs().amax(1)
        return torch.maximum(self.gamma / d * s.reach, finest).clamp(min=torch.finfo(q.x.dtype).tiny)


def free(q: DecisionQuery) -> int:
    """How many components may change, at least 1."""
    if q.threat.mask is None:
        return q.x[0].numel()
    return max(1, int(q.threat.mask.expand(q.x.shape[1:]).sum()))


def between(q: DecisionQuery, s: HopSkipJumpState, share: Tensor) -> Tensor:
    """The point nearest to the anchor within that share of its distance from the image."""
    return q.threat.project(s.anchor, q.x, radius=share * q.threat.size(s.anchor - q.x))


def middle(q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
    """Half-way between what fools and what does not."""
    return between(q, s, (s.low + s.high) / 2)


def end(q: DecisionQuery, s: HopSkipJumpState) -> Tensor:
    """The end of the search that fools: while estimating and jumping, the anchor."""
    return between(q, s, s.high)


def start(q: DecisionQuery, k: Tensor) -> Tensor:
    """A random point of the box: noise, in turn as fine as the pixels and in ever coarser blocks, then two-valued.

    Many models answer one class to all fine noise; coarse noise and flat colours get others out of them.
    """
    channels, height, width = planes(q.x.shape[1:])
    levels = 1 + math.ceil(math.log2(max(height, width)))
    cell = 2 ** (k % levels)[:, None]
    r, c = (torch.arange(n, device=q.x.device) // cell * cell for n in (height, width))
    draw = q.uniform(k, shape=(channels, height * width))
    draw = draw.gather(2, (r[:, :, None] * width + c[:, None, :]).view(-1, 1, height * width).expand_as(draw))
    draw = draw.flatten(1)
    draw = torch.where((k // levels % 2 == 1)[:, None], draw.round(), draw)
    low, high = q.threat.box(q.x)
    wide = (1 + q.x.flatten(1).abs().amax(1)) * 2 ** (k // levels).clamp(max=20)
    low = torch.where(low.isinf(), q.x.flatten(1) - wide[:, None], low)
    high = torch.where(high.isinf(), q.x.flatten(1) + wide[:, None], high)
    return (low + draw * (high - low)).view_as(q.x)
