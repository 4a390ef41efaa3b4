"""Auto-PGD: projected gradient ascent that chooses its own step size; for Linf and L2, and its sparse kin for L1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..losses import named
from ..models.access import Access
from ..norms import column, room
from ..oracle import GradientQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows, where
from .steering import kicked

MOMENTUM = 0.75  # α from the second update on (section 3.1)
LARGER = ((0.3, 3.0), (0.3, 2.0), (0.4, 1.0))  # APGD-L1's phases: share of the steps, radius in eps (section 3.3)


@dataclass(frozen=True, kw_only=True)
class APGDState(State):
    """The point before x; the best point with its gradient and loss; the last loss; the step size η and its checks."""

    before: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last: Tensor
    size: Tensor
    rises: Tensor  # looks since the checkpoint at which the loss rose
    halved: Tensor  # η was halved at the last checkpoint
    mark: Tensor  # the best loss at the last checkpoint


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD: projected gradient ascent with momentum that halves its own step. Croce & Hein
    2020, arXiv:2003.01690, Algorithm 1.

    The first step is 2·eps. At checkpoints (22 % of the steps, then ever closer) a row halves its step η and goes back
    to its best point if its loss rose in too few of the looks since, or if the best loss has not improved with this η.

        u ← P(x + η · argmax over |d| ≤ 1 of <∇x J, d>);  x ← P(x + 0.75(u - x) + 0.25(x - x₋₁))

    steps:  looks per trial. 100: their section 4.
    loss:   the loss J by name: cross_entropy (APGD-CE) or dlr (APGD-DLR; with Targeted: APGD-T).
    rho:    the share of looks that must raise the loss to keep η. 0.75: their section 3.2.

    Fails: where gradients are masked (zero, shattered or random) its loss says little; a gradient-free attack shows it.
    With cross_entropy it stalls where the logits are so large that the softmax saturates.
    """

    steps: int = 100
    loss: str = "cross_entropy"
    rho: float = 0.75

    name: ClassVar[str] = "apgd"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        named(self.loss)
        check_number(self, "rho", "(0, 1)")

    def init(self, q: GradientQuery, x: Tensor) -> APGDState:
        """From a random point of size eps (inside the box)."""
        draw = 2 * q.uniform() - 1 if isinstance(q.threat, Linf) else q.normal()
        start = q.threat.project(x + draw * rows(q.threat.eps / q.threat.size(draw), x), x)
        none = x.new_full((len(x),), -torch.inf)
        return APGDState(
            x=start, before=start, best=start, best_gradient=torch.zeros_like(x), best_loss=none, last=none,
            size=torch.full_like(none, 2 * q.threat.eps), rises=torch.zeros_like(none), mark=none,
            halved=torch.ones_like(none, dtype=torch.bool),
        )  # fmt: skip

    def step(self, q: GradientQuery, s: APGDState) -> APGDState:
        """One look, a check where one is due, and one update."""
        seen, first = q.look(s.x, self.loss), s.k == 0
        rises = s.rises + ((seen.loss > s.last) & ~first)
        best, best_gradient, best_loss = where(
            seen.loss > s.best_loss, (s.x, seen.gradient, seen.loss), (s.best, s.best_gradient, s.best_loss)
        )
        mark = torch.where(first, best_loss, s.mark)
        window = windows(self.steps).to(s.k.device)[s.k]
        check = window > 0
        stuck = check & ((rises <= self.rho * window) | (~s.halved & (best_loss <= mark)))
        size = torch.where(stuck, s.size / 2, s.size)
        x, gradient = where(stuck, (best, best_gradient), (s.x, seen.gradient))
        u = q.threat.project(x + rows(size, x) * q.threat.steepest(kicked(q, gradient, s.k), x, 1.0), q.x)
        a = rows(torch.where(first, 1.0, MOMENTUM).to(x.dtype), x)
        return replace(
            s, x=q.threat.project(x + a * (u - x) + (1 - a) * (x - s.before), q.x), before=x, best=best,
            best_gradient=best_gradient, best_loss=best_loss, last=seen.loss, size=size,
            rises=torch.where(check, 0.0, rises), halved=torch.where(check, stuck, s.halved),
            mark=torch.where(check, best_loss, mark),
        )  # fmt: skip


@lru_cache
def windows(steps: int) -> Tensor:
    """(steps,) at each look the length of the window that a checkpoint there judges, else 0. Section 3.2."""
    table = torch.zeros(steps, dtype=torch.int64)
    window, least, shorter = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    at = window
    while at < steps:
        table[at] = window
        window = max(window - shorter, least)
        at += window
    return table


@dataclass(frozen=True, kw_only=True)
class APGDL1State(State):
    """The best point of the phase with its gradient and loss; the step size η; how sparse steps are and points were."""

    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    share: Tensor  # of the components, those that a step moves
    changed: Tensor  # components that the best point changed at the last check


@dataclass(frozen=True)
class APGDL1(Attack):
    """Auto-PGD for L1: sparse steps whose sparsity follows that of the best point. Croce & Hein
    2021, arXiv:2103.01208, Algorithm 1.

    Steps go along the signs of the steepest components, two thirds as many as the best point changes. Three phases
    begin in wide balls and end in the right one: 3, 2 and 1 eps for 30, 30 and 40 % of the steps. P is the exact
    projection on the L1 ball and the box. At a check η starts again at eps if the best point has become sparser, else
    it shrinks by 1.5, down to eps/10.

        x ← P(x + η · s/|s|₁),  s = sign of ∇x J on its largest components

    steps:  looks per trial. 100: their section 5.
    loss:   the loss J by name, as in apgd.

    Fails: where gradients are masked, as every gradient attack.
    """

    steps: int = 100
    loss: str = "cross_entropy"

    name: ClassVar[str] = "apgd-l1"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L1,)
    wanders: ClassVar[bool] = True  # the first phases look outside the ball

    def __post_init__(self) -> None:
        check_count(self, "steps")
        named(self.loss)

    def init(self, q: GradientQuery, x: Tensor) -> APGDL1State:
        """From a projected Gaussian."""
        factor = float(phases(self.steps)[0, 0])
        start = q.threat.project(x + q.normal(), x, factor * q.threat.eps)
        return self._begun(q, start, x.new_full((len(x),), factor))

    def _begun(self, q: GradientQuery, x: Tensor, factor: Tensor) -> APGDL1State:
        changed = components(x - q.x)
        return APGDL1State(
            x=x, best=x, best_gradient=torch.zeros_like(x), best_loss=torch.full_like(factor, -torch.inf),
            size=factor * q.threat.eps, share=changed / x[0].numel() / 1.5, changed=changed,
        )  # fmt: skip

    def step(self, q: GradientQuery, s: APGDL1State) -> APGDL1State:
        """One look, a check where one is due, and one update; at the end of a phase, the start of the next."""
        seen = q.look(s.x, self.loss)
        factor, check, ends = phases(self.steps).to(s.x)[s.k].unbind(1)
        radius = factor * q.threat.eps
        best, best_gradient, best_loss = where(
            seen.loss > s.best_loss, (s.x, seen.gradient, seen.loss), (s.best, s.best_gradient, s.best_loss)
        )
        now, due = components(best - q.x), check > 0
        sparser = due & (now < 0.95 * s.changed)
        size = torch.where(due & ~sparser, torch.maximum(s.size / 1.5, radius / 10), s.size)
        size = torch.where(sparser, radius, size)
        share, changed = where(due, (now / s.x[0].numel() / 1.5, now), (s.share, s.changed))
        x, gradient = where(sparser, (best, best_gradient), (s.x, seen.gradient))
        direction = sparse_sign(q, kicked(q, gradient, s.k), x, share)
        x = q.threat.project(x + rows(size, x) * direction, q.x, radius)
        s = replace(
            s, x=x, best=best, best_gradient=best_gradient, best_loss=best_loss, size=size, share=share, changed=changed
        )
        if not bool(ends.any()):
            return s
        factor = torch.where(ends > 0, ends, factor)
        anew = self._begun(q, q.threat.project(best, q.x, factor * q.threat.eps), factor)
        names = ("x", "best", "best_gradient", "best_loss", "size", "share", "changed")
        parts = where(ends > 0, [getattr(anew, n) for n in names], [getattr(s, n) for n in names])
        return replace(s, **dict(zip(names, parts, strict=True)))


def components(change: Tensor) -> Tensor:
    """How many components differ from 0: (B, *shape) to (B,)."""
    return (change != 0).flatten(1).sum(1).to(change.dtype)


def sparse_sign(q: GradientQuery, gradient: Tensor, x: Tensor, share: Tensor) -> Tensor:
    """Signs of each row's `share` (B,) of components with the steepest slope and room to move, of L1 size 1."""
    g, flat = gradient.flatten(1), x.flatten(1)
    slope = torch.where(room(g, flat, q.threat.box(q.x)) > 0, g.abs(), 0)
    count = (share * slope.shape[1]).long().clamp(1, slope.shape[1])
    least = slope.sort(dim=1, descending=True).values.gather(1, column(count - 1))
    sign = torch.where((slope >= least) & (slope > 0), g.sign(), 0)
    return (sign / sign.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)


@lru_cache
def phases(steps: int) -> Tensor:
    """(steps, 3) at each look: the radius in eps, 1 where a check is due, and the next phase's radius at a phase's end."""
    table, at = torch.zeros(steps, 3), 0
    lengths = [int(share * steps) for share, _ in LARGER[:-1]]
    lengths.append(steps - sum(lengths))
    for length, (_, factor) in zip(lengths, LARGER, strict=True):
        if length and at:
            table[at - 1, 2] = factor
        table[at : at + length, 0] = factor
        table[at + max(int(0.04 * length), 1) : at + length : max(int(0.04 * length), 1), 1] = 1
        at += length
    return table
