"""DeepFool and SuperDeepFool: to the nearest boundary of the model made linear, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ..goals import pick
from ..losses import margin
from ..models.access import Access
from ..oracle import GradientQuery, Sighting
from ..threats import L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows
from .steering import widths

UNKNOWN = -1
Rows = TypeVar("Rows", bound=State)
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class DeepFoolState(State):
    """The classes that a row compares (B, candidates - 1), by falling clean logit."""

    order: Tensor


@dataclass(frozen=True)
class Boundary:
    """The nearest boundary of the model made linear at a row's point: where <w, z - x> = lack.

    x:       (B, *shape) the point that it is nearest to.
    lack:    (B,) how much the margin lacks there; below 0 behind the boundary.
    w:       (B, *shape) the margin's gradient at the row's point.
    fooled:  (B,) whether the row's point reaches the goal.
    short:   (B,) how much the true margin lacks at the row's point, whatever class is aimed at.
    order:   (B, K) the classes compared, `UNKNOWN` where the model has fewer.
    """

    x: Tensor
    lack: Tensor
    w: Tensor
    fooled: Tensor
    short: Tensor
    order: Tensor


def no_order(x: Tensor, candidates: int) -> Tensor:
    """The order of new rows: no class is known before a look has shown the logits."""
    return torch.full((len(x), candidates - 1), UNKNOWN, device=x.device)


def boundary(q: GradientQuery, s: DeepFoolState, beta: float = 1.0) -> Boundary:
    """The nearest of the linear boundaries between the label and the classes in `order`; one look at each row.

    Towards a class, only its boundary counts. A row without an order gets it from the logits of this look.
    Nearest to the row's point; to that a share `beta` of its change away from the image where the point fools.
    """
    if q.goal.toward is not None:
        return _margin(q, s, beta)
    single = (s.order != UNKNOWN).sum(1) == 1
    return either(q, single, partial(_margin, beta=beta), partial(_jacobian, beta=beta), s)


def either(
    q: GradientQuery,
    mask: Tensor,
    yes: Callable[[GradientQuery, Rows], Found],
    no: Callable[[GradientQuery, Rows], Found],
    s: Rows,
) -> Found:
    """What `yes` finds in the rows where the mask (B,) holds and `no` in the others, back in order."""
    parts: list[tuple[Tensor, Found]] = []
    for chosen, find in ((mask, yes), (~mask, no)):
        index = chosen.nonzero().squeeze(1)
        if len(index) == len(mask):
            return find(q, s)
        if len(index):
            parts.append((index, find(some(q, index), replace(s, **_each(lambda v: v[index], s)))))  # noqa: B023
    (first, one), (second, two) = parts
    order = torch.cat([first, second]).argsort()
    joined = _each(lambda v, w: torch.cat([v, w])[order], one, two)
    return replace(one, **joined)  # type: ignore[type-var]  # what is found is always a dataclass


def _each(change: Callable[..., Tensor], *rows: Any) -> dict[str, Any]:
    """The fields of dataclasses of tensors, changed together."""
    values = {f.name: [getattr(part, f.name) for part in rows] for f in fields(rows[0])}
    return {name: change(*each) for name, each in values.items() if each[0] is not None}


def some(q: GradientQuery, index: Tensor) -> GradientQuery:
    """The query of some rows."""

    def seen(sight: Sighting) -> None:
        q.seen(replace(sight, row=index if sight.row is None else index[sight.row]))

    return replace(
        q, x=q.x[index], goal=q.goal.rows(index), ids=q.ids[index], trial=q.trial[index], restart=q.restart[index],
        example=q.example[index.cpu()], seen=seen,
    )  # fmt: skip


def _margin(q: GradientQuery, s: DeepFoolState, beta: float) -> Boundary:
    """By one gradient: the boundary of the class aimed at, or of the only other."""
    seen = q.look(s.x, "margin")
    x = _shrunk(q, s.x, seen.fooled, beta)
    lack = q.goal.confidence - seen.loss + (seen.gradient * (s.x - x)).flatten(1).sum(1)
    return Boundary(x, lack, seen.gradient, seen.fooled, shortfall(q, seen.logits), s.order)


def _jacobian(q: GradientQuery, s: DeepFoolState, beta: float) -> Boundary:
    """By one gradient for each class: the boundary of the least distance, |lack| / dual norm of w."""
    label = q.goal.label[:, None]

    def chosen(logits: Tensor) -> Tensor:
        count = min(s.order.shape[1], logits.shape[1] - 1)
        first = logits.scatter(1, label, -torch.inf).topk(count, dim=1).indices
        return torch.cat([label, torch.where(s.order[:, :1] == UNKNOWN, first, s.order[:, :count])], dim=1)

    gradients, logits = q.jacobian(s.x, chosen)
    others = chosen(logits)[:, 1:]
    fooled, w = q.goal.fooled(logits), gradients[:, 1:] - gradients[:, :1]
    x = _shrunk(q, s.x, fooled, beta)
    lack = q.goal.confidence + pick(logits, q.goal.label)[:, None] - logits.gather(1, others)
    lack = lack + (w * (s.x - x)[:, None]).flatten(2).sum(2)
    dual = q.threat.dual(w.flatten(0, 1)).view_as(lack)
    nearest = torch.where(dual > 0, lack.abs() / dual, torch.inf).argmin(1)
    row = torch.arange(len(w), device=w.device)
    order = torch.cat([others, s.order[:, others.shape[1] :]], dim=1)
    return Boundary(x, lack[row, nearest], w[row, nearest], fooled, shortfall(q, logits), order)


def shortfall(q: GradientQuery, logits: Tensor) -> Tensor:
    """How much the margin of logits (B, C) lacks to reach the goal, by any class that does."""
    return q.goal.confidence - margin(logits, replace(q.goal, aim=None))


def _shrunk(q: GradientQuery, x: Tensor, fooled: Tensor, beta: float) -> Tensor:
    return x if beta == 1 else torch.where(rows(fooled, x), q.x + beta * (x - q.x), x)


def onward(q: GradientQuery, s: State, near: Boundary, overshoot: float, more: float = 1e-4) -> Tensor:
    """DeepFool's step: the least one to the linear boundary, made longer by the overshoot, then clipped to the box.

    A step that made up for what the box takes would cross the true boundary farther out. A small share `more` of the
    change so far is added, for ever smaller steps would take many looks and end in rounding.
    """
    dual = q.threat.dual(near.w)
    length = near.lack / dual + more * q.threat.size(s.x - q.x) + rounding(q, s.x)
    step = q.threat.steepest(near.w, s.x) * rows(torch.where(dual > 0, (1 + overshoot) * length, 0), s.x)
    z = q.threat.project(s.x + step, q.x)
    return unless_stuck(q, s, (s.x != z).flatten(1).any(1), z)


def rounding(q: GradientQuery, x: Tensor) -> Tensor:
    """The size (B,) of a few units of rounding in every component: a boundary this near counts as not yet crossed."""
    return q.threat.size(x * (4 * torch.finfo(x.dtype).eps))


def unless_stuck(q: GradientQuery, s: State, moves: Tensor, z: Tensor) -> Tensor:
    """z, but a random point near x in the rows that do not move (B,)."""
    return z if bool(moves.all()) else torch.where(rows(moves, z), z, astray(q, s))


def astray(q: GradientQuery, s: State, share: float = 0.01) -> Tensor:
    """A random point near x, a share of the box's size away at most: for rows whose gradient leads nowhere.

    Ten steps go the same way: that leaves a plateau sooner than ten that take back each other's way.
    """
    radius, turn = share * q.threat.size(widths(q)), s.k // 10
    return q.threat.sample(s.x, lambda: q.uniform(turn), lambda: q.normal(turn), radius)


def check_options(attack: Attack) -> None:
    """Raise unless the options that DeepFool and SuperDeepFool share are what they must be."""
    check_count(attack, "steps")
    check_number(attack, "overshoot", "[0, inf)")
    check_count(attack, "candidates", 2)


@dataclass(frozen=True)
class DeepFool(Attack):
    """DeepFool: the least step to the nearest boundary of the model made linear, until the class changes.
    Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, Algorithm 2.

    Each class l has a boundary in the linear model, |z_l - z_y| / |∇(z_l - z_y)|_dual away; the step goes to the
    nearest one and a little beyond. It ends at the first point that fools: a quick upper bound of the distance, not
    the least one.

        l = argmin over l ≠ y of |z_l - z_y| / |w_l|_dual, w_l = ∇(z_l - z_y)
        x ← clip(x + (1 + overshoot) · argmin over d of |d| with <w_l, d> = z_y - z_l)

    steps:       looks per trial. 50: the authors' code (max_iter).
    overshoot:   how much further than the boundary, as a share of each step. 0.02: the authors' code.
    candidates:  classes compared, the true one among them. 10: the authors' code (num_classes).

    Fails: it stops at the first boundary that it crosses, 10 to 100 % farther than the nearest one on curved models;
    zero gradients leave it to random steps.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    name: ClassVar[str] = "deepfool"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2)
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def passes(self) -> int:
        """One forward, and a backward pass for each candidate."""
        return 1 + self.candidates

    def init(self, q: GradientQuery, x: Tensor) -> DeepFoolState:
        """From the image (a copy: images that are wrong anyway are better told by a forward pass than by a look)."""
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return DeepFoolState(x=x.clone(), order=no_order(x, self.candidates), done=none)

    def step(self, q: GradientQuery, s: DeepFoolState) -> DeepFoolState:
        """Ends where the model is fooled."""
        near = boundary(q, s)
        x = torch.where(rows(near.fooled, s.x), s.x, onward(q, s, near, self.overshoot))
        return replace(s, x=x, order=near.order, done=near.fooled)


@dataclass(frozen=True, kw_only=True)
class SuperDeepFoolState(DeepFoolState):
    """The smallest point that fools so far, and how far the search between it and the image is."""

    projected: Tensor  # x is a projection
    searching: Tensor
    adversarial: Tensor
    size: Tensor  # of the adversarial point's change; inf: there is none
    low: Tensor  # the largest share of that change known not to fool
    high: Tensor  # the smallest known to fool


@dataclass(frozen=True)
class SuperDeepFool(Attack):
    """SuperDeepFool: DeepFool to the boundary, then along the boundary's normal, until both agree.
    Abdolahpourrostam et al. 2023, arXiv:2303.12481, Algorithm 3, SDF(∞, 1).

    The smallest change is parallel to the boundary's normal; DeepFool's is not. So what DeepFool has changed is
    projected on the normal at the point that it reached, and DeepFool goes on from there, until the projection itself
    fools or only the search's looks are left: a bisection between the image and the smallest change found.

        x̃ = DeepFool from x;  w = ∇(z_l - z_y)(x̃)
        x ← x₀ + <x̃ - x₀, w> / |w|² · w

    steps:       looks per trial, the bisection's among them. 100: the authors' code (there for each of its loops).
    overshoot:   how much further than the boundary, as a share of each step. 0.02: the authors' code.
    candidates:  classes compared, the true one among them. 10: DeepFool's.
    search:      bisections at the end, a forward pass each. 10: adv-lib's implementation.

    Fails: as DeepFool; where the boundary is strongly curved the two steps may take turns until the looks are spent.
    """

    steps: int = 100
    overshoot: float = 0.02
    candidates: int = 10
    search: int = 10

    name: ClassVar[str] = "superdeepfool"
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[tuple[type[Threat], ...]] = (L2,)
    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        check_count(self, "search", 0)

    @property
    def passes(self) -> int:
        """One forward, and a backward pass for each candidate."""
        return 1 + self.candidates

    def init(self, q: GradientQuery, x: Tensor) -> SuperDeepFoolState:
        """From a copy of the image; see `DeepFool`."""
        zero = x.new_zeros(len(x))
        return SuperDeepFoolState(
            x=x.clone(), order=no_order(x, self.candidates), projected=zero > 0, searching=zero > 0,
            adversarial=x, size=zero + torch.inf, low=zero, high=zero + 1, done=zero > 0,
        )  # fmt: skip

    def step(self, q: GradientQuery, s: SuperDeepFoolState) -> SuperDeepFoolState:
        """Hunt or search; what has been found is searched in the last looks at the latest."""
        late = (s.k >= self.steps - self.search) & s.size.isfinite()
        return either(q, s.searching | late, self._halve, self._hunt, s)

    def _hunt(self, q: GradientQuery, s: SuperDeepFoolState) -> SuperDeepFoolState:
        """DeepFool's step; from a point that fools, its projection; from a projection that fools, the search."""
        near = boundary(q, s)
        size = q.threat.size(s.x - q.x)
        better = near.fooled & (size < s.size)
        normal = q.threat.steepest(near.w, q.x)
        along = normal * rows((normal * (s.x - q.x)).flatten(1).sum(1), s.x)
        ended = near.fooled & s.projected
        x = torch.where(rows(ended, s.x), s.x, onward(q, s, near, self.overshoot, more=0.01))
        x = torch.where(rows(near.fooled & ~ended, s.x), q.threat.project(q.x + along, q.x), x)
        adversarial = torch.where(rows(better, s.x), s.x, s.adversarial)
        return replace(
            s, x=x, order=near.order, projected=near.fooled, searching=ended, adversarial=adversarial,
            size=torch.where(better, size, s.size), done=ended & (self.search == 0),
        )  # fmt: skip

    def _halve(self, q: GradientQuery, s: SuperDeepFoolState) -> SuperDeepFoolState:
        """One bisection; it ends at the smallest share that fools."""
        share = (s.low + s.high) / 2
        change = s.adversarial - q.x
        fooled = q.decide(q.threat.project(q.x + rows(share, s.x) * change, q.x))
        low, high = torch.where(fooled, s.low, share), torch.where(fooled, share, s.high)
        x = torch.where(rows(high < 1, s.x), q.threat.project(q.x + rows(high, s.x) * change, q.x), s.adversarial)
        done = high - low <= 0.5**self.search
        return replace(s, x=x, searching=torch.ones_like(fooled), low=low, high=high, done=done)
