"""The geometry of the four norms, on flat rows: all that attacks and certificates need to know of a norm.

Everything here works on rows: points `z`, `x` and gradients `g` are (N, D), radii are (N,). A box is a pair of
tensors that broadcast to (N, D), the lower and the upper limit of every component. No function changes its arguments.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[Tensor, Tensor]
Draw = Callable[[], Tensor]


class Norm(ABC):
    """A norm (or, for L0, a count) and the geometry of its balls."""

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """The norm of each row: (N, D) to (N,)."""

    @abstractmethod
    def rounding(self, dimension: int) -> float:
        """How many units of one component's rounding the size of a row may be off by."""

    @abstractmethod
    def project(self, z: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The point nearest to z (Euclidean) in the ball of that radius round x and in the box. Exact."""

    @abstractmethod
    def steepest(self, g: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The direction d of size at most 1 that maximises <g, d>, so that x + radius·d is the best point.

        L1 and L0 fill ball ∩ box greedily from x: without the box the best step is one useless component.
        """

    @abstractmethod
    def dual(self, g: Tensor, width: Tensor) -> Tensor:
        """The largest <g, d> over d of size 1: (N, D) to (N,). `width` is the box's, which only L0 needs."""

    def support(self, g: Tensor, radius: Tensor, width: Tensor) -> Tensor:
        """An upper bound of <g, z - x> over the ball: radius times the dual norm."""
        return radius * self.dual(g, width)

    @abstractmethod
    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """The proximal operator of weight·size: argmin over u of |u - v|²/2 + weight·size(u)."""

    @abstractmethod
    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor, box: Box) -> Tensor:
        """The smallest step d with <w, d> = offset and x + d in the box; the farthest there is if none reaches."""

    @abstractmethod
    def sample(self, uniform: Draw, normal: Draw, radius: Tensor, box: Box) -> Tensor:
        """A random step, uniform in the ball (L0: random components, anywhere in the box).

        `uniform` and `normal` make the draws (N, D) that it asks for, in (0, 1) and standard normal.
        """


def column(row: Tensor) -> Tensor:
    """(N,) to (N, 1), to scale rows with."""
    return row[:, None]


def clip(z: Tensor, box: Box) -> Tensor:
    """The nearest point of the box."""
    return torch.minimum(torch.maximum(z, box[0]), box[1])


def room(direction: Tensor, x: Tensor, box: Box) -> Tensor:
    """How far each component can go from x in the direction's sign before it meets the box."""
    return torch.where(direction > 0, box[1] - x, x - box[0])


def unit(v: Tensor) -> Tensor:
    """Rows scaled to Euclidean length 1; zero rows stay zero. Safe where squares would under- or overflow."""
    peak = v.abs().amax(1, keepdim=True)
    v = v / torch.where(peak > 0, peak, 1)
    length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return v / torch.where(length > 0, length, 1)


def fill(score: Tensor, cost: Tensor, budget: Tensor) -> Tensor:
    """Spend the budget on the components in falling order of score, each up to its cost; the last gets the rest."""
    order = score.argsort(dim=1, descending=True)
    cost = cost.gather(1, order).minimum(column(budget))
    spent = cost.cumsum(1) - cost
    left = column(budget) - spent
    given = torch.where(left > 4 * torch.finfo(cost.dtype).eps * column(budget), left, 0).minimum(cost)
    return torch.zeros_like(given).scatter(1, order, given)


def fill_first(score: Tensor, cost: Tensor, budget: Tensor, first: int = 64) -> Tensor:
    """`fill`, from the `first` highest scores alone in the rows where they are enough: to find them needs no sort."""
    if score.shape[1] <= first:
        return fill(score, cost, budget)
    top = score.topk(first, dim=1)
    most = cost.gather(1, top.indices)
    given = torch.zeros_like(cost).scatter(1, top.indices, fill(top.values, most, budget))
    short = (most.sum(1) < budget).nonzero().squeeze(1)
    return given.index_copy_(0, short, fill(score[short], cost[short], budget[short])) if len(short) else given


def level(weight: Tensor, rate: Tensor, room: Tensor, target: Tensor) -> Tensor:
    """A t at which the sum of weight·min(t·rate, room) reaches the target; past the last breakpoint if it never does.

    The sum is concave in t, so Newton from below never overshoots: with the components that have met their room at this
    t held, the rest has a closed form; it ends when the set of held components no longer grows. No sort is needed.
    """
    limits = torch.finfo(rate.dtype)
    stop = room / rate.clamp(min=limits.tiny)
    gain, full = weight * rate, (weight * room).nan_to_num_(nan=0.0, posinf=0.0)  # infinite room is never met
    total = gain.sum(1)
    t = torch.where(total > 0, target / total, 0).clamp_(max=limits.max)
    held = torch.empty_like(stop)
    while True:
        torch.le(stop, column(t), out=held)
        left = target - torch.linalg.vecdot(full, held)
        slope = torch.linalg.vecdot(gain, held.neg_().add_(1))
        further = torch.where(slope > 0, left / slope, t).clamp_(max=limits.max)
        done = bool((further <= t * (1 + 4 * limits.eps)).all())
        t = torch.maximum(t, further)
        if done:
            return t


@dataclass(frozen=True)
class LinfNorm(Norm):
    """The largest change of any component."""

    def size(self, delta: Tensor) -> Tensor:
        """See `Norm`."""
        return delta.abs().amax(1)

    def rounding(self, dimension: int) -> float:
        """See `Norm`."""
        return 1.0

    def project(self, z: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """Clamp, in the coordinates of z: x + radius comes out to the bit."""
        r = column(radius)
        near = torch.maximum(z, x - r)
        for limit, bound in ((torch.minimum, x + r), (torch.maximum, box[0]), (torch.minimum, box[1])):
            limit(near, bound, out=near)  # in place: fresh memory costs more than the arithmetic
        return near

    def steepest(self, g: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The sign of the gradient."""
        return g.sign()

    def dual(self, g: Tensor, width: Tensor) -> Tensor:
        """The L1 norm."""
        return g.abs().sum(1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """By Moreau's identity: v less its projection on the L1 ball."""
        free = (v.new_tensor(-torch.inf), v.new_tensor(torch.inf))
        return v - L1Norm().project(v, torch.zeros_like(v), weight, free)

    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor, box: Box) -> Tensor:
        """All components move by t, as far as they have room."""
        w = w * column(offset.sign())
        free = room(w, x, box)
        sign = w.sign()
        t = level(w.abs(), sign.abs(), free, offset.abs())
        return sign * torch.minimum(column(t), free)

    def sample(self, uniform: Draw, normal: Draw, radius: Tensor, box: Box) -> Tensor:
        """Every component uniform in ± radius."""
        return (2 * uniform() - 1) * column(radius)


@dataclass(frozen=True)
class L2Norm(Norm):
    """Euclidean length."""

    def size(self, delta: Tensor) -> Tensor:
        """See `Norm`."""
        length: Tensor = torch.linalg.vector_norm(delta, dim=1)
        return length

    def rounding(self, dimension: int) -> float:
        """See `Norm`."""
        return math.sqrt(dimension)

    def project(self, z: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The nearest point is clip(x + s·(z - x)) for the one s in [0, 1] that gives it length radius."""
        near = clip(z, box)
        far = (torch.linalg.vector_norm(near - x, dim=1) > radius).nonzero().squeeze(1)
        if not len(far):
            return near
        x, z, radius, box = _those(far, x, z, radius, box)
        d = z - x
        change = d.abs()
        limit = torch.minimum(room(d, x, box), change)
        scale = _scale(change, limit, radius)
        return near.index_copy(0, far, clip(torch.addcmul(x, d, column(scale)), box))

    def steepest(self, g: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The gradient's own direction."""
        return unit(g)

    def dual(self, g: Tensor, width: Tensor) -> Tensor:
        """The L2 norm."""
        return self.size(g)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """Shorten every row by weight."""
        length = self.size(v)
        return v * column((1 - weight / length.clamp(min=torch.finfo(v.dtype).tiny)).clamp(min=0))

    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor, box: Box) -> Tensor:
        """Components move by t·w, as far as they have room."""
        peak = w.abs().amax(1).clamp(min=torch.finfo(w.dtype).tiny)  # the squares of small weights would underflow
        w, offset = w * column(offset.sign() / peak), (offset.abs() / peak).clamp(max=torch.finfo(w.dtype).max)
        slope, free = w.abs(), room(w, x, box)
        return torch.minimum(column(level(slope, slope, free, offset)) * slope, free).copysign_(w)

    def sample(self, uniform: Draw, normal: Draw, radius: Tensor, box: Box) -> Tensor:
        """A random direction, with the radius's share spread so that the ball is filled evenly."""
        direction = unit(normal())
        return direction * column(radius * uniform()[:, 0] ** (1 / direction.shape[1]))


@dataclass(frozen=True)
class L1Norm(Norm):
    """The sum of all changes."""

    def size(self, delta: Tensor) -> Tensor:
        """See `Norm`."""
        return delta.abs().sum(1)

    def rounding(self, dimension: int) -> float:
        """See `Norm`."""
        return float(dimension)

    def project(self, z: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """Shrink every change by one threshold, up to the box; the threshold by bracketed Newton.

        Of a point many radii away the threshold cancels most digits; projecting what came out again restores them.
        """
        near = clip(z, box)
        most = (near - x).abs_()  # where the box stops a change, that is its limit; elsewhere the change itself
        total = most.sum(1)
        far, slack = (total > radius).nonzero().squeeze(1), 0.0
        while len(far):
            fx, fz, fr, fbox = _those(far, x, z, radius, box)
            whole = len(far) == len(x)
            limit, sums = (most, total) if whole else (most[far], total[far])
            change = fz - fx
            size = change.abs()
            less = (size - column(_threshold(size, limit, sums, fr))).clamp_(min=0).copysign_(change)
            moved = clip(less.add_(fx), fbox)
            z = near = moved if whole else near.index_copy(0, far, moved)
            if not bool((size.amax(1) > 4 * fr).any()):
                break
            slack = 2 * slack or 16 * torch.finfo(x.dtype).eps
            most = (near - x).abs_()
            total = most.sum(1)
            far = (total > radius * (1 + slack)).nonzero().squeeze(1)
        return near

    def steepest(self, g: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The components of largest slope go to the box's wall, one after the other, until the radius is spent."""
        best = fill(g.abs(), torch.where(g != 0, room(g, x, box), 0), radius)
        return best * g.sign() / column(radius)

    def dual(self, g: Tensor, width: Tensor) -> Tensor:
        """The largest component."""
        return g.abs().amax(1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """Soft thresholding."""
        return v.sign() * (v.abs() - column(weight)).clamp(min=0)

    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor, box: Box) -> Tensor:
        """The steepest components go to the wall first."""
        w = w * column(offset.sign())
        gain = w.abs() * room(w, x, box).clamp(max=torch.finfo(w.dtype).max)
        return torch.where(w != 0, fill_first(w.abs(), gain, offset.abs()) / w, 0)

    def sample(self, uniform: Draw, normal: Draw, radius: Tensor, box: Box) -> Tensor:
        """Exponential spacings with random signs; the share of the radius from the first normal's magnitude."""
        parts, sign = -uniform().log(), normal()
        share = torch.erf(sign[:, 0].abs() / math.sqrt(2)) ** (1 / sign.shape[1])
        return parts / parts.sum(1, keepdim=True) * sign.sign() * column(radius * share)


@dataclass(frozen=True)
class L0Norm(Norm):
    """The number of components that change; with `channels` > 1, the number of pixels, all channels as one."""

    channels: int = 1

    def _pixels(self, amount: Tensor) -> Tensor:
        """Sum over the channels: (N, D) to (N, D / channels)."""
        return amount if self.channels == 1 else amount.view(len(amount), self.channels, -1).sum(1)

    def _keep(self, amount: Tensor, radius: Tensor) -> Tensor:
        """True at the components of the `radius` pixels with the largest amounts above 0: (N, D)."""
        amount = self._pixels(amount)
        value, order = amount.sort(dim=1, descending=True, stable=True)
        rank = torch.arange(amount.shape[1], device=amount.device)
        kept = (rank < column(radius.floor())) & (value > 0)
        mask = torch.zeros_like(kept).scatter(1, order, kept)
        return mask if self.channels == 1 else mask.repeat(1, self.channels)

    def size(self, delta: Tensor) -> Tensor:
        """See `Norm`."""
        return (self._pixels((delta != 0).to(delta.dtype)) > 0).sum(1).to(delta.dtype)

    def rounding(self, dimension: int) -> float:
        """A count is exact."""
        return 0.0

    def project(self, z: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """Keep the changes whose loss would cost most."""
        near = clip(z, box)
        return torch.where(self._keep((z - x).square() - (z - near).square(), radius), near, x)

    def steepest(self, g: Tensor, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """The components that gain most go to the box's wall."""
        reach = torch.where(g != 0, room(g, x, box), 0)
        return torch.where(self._keep(g.abs() * reach, radius), reach * g.sign(), 0) / column(radius)

    def dual(self, g: Tensor, width: Tensor) -> Tensor:
        """The most that one component (pixel) can give, moved across the whole box."""
        return self._pixels(g.abs() * width).amax(1)

    def support(self, g: Tensor, radius: Tensor, width: Tensor) -> Tensor:
        """The sum of the `radius` largest gains: tighter than radius times the dual."""
        gain = self._pixels(g.abs() * width).sort(dim=1, descending=True).values
        rank = torch.arange(gain.shape[1], device=g.device)
        return torch.where(rank < column(radius.floor()), gain, 0).sum(1)

    def prox(self, v: Tensor, weight: Tensor) -> Tensor:
        """Hard thresholding: a pixel stays where its square outweighs 2·weight."""
        kept = self._pixels(v * v) > column(2 * weight)
        return torch.where(kept if self.channels == 1 else kept.repeat(1, self.channels), v, 0)

    def hyperplane(self, x: Tensor, w: Tensor, offset: Tensor, box: Box) -> Tensor:
        """The components that can give most go first; the last only as far as needed."""
        w = w * column(offset.sign())
        gain = w.abs() * room(w, x, box).clamp(max=torch.finfo(w.dtype).max)
        score = self._pixels(gain)
        score = score if self.channels == 1 else score.repeat(1, self.channels)
        return torch.where(w != 0, fill(score, gain, offset.abs()) / w, 0)

    def sample(self, uniform: Draw, normal: Draw, radius: Tensor, box: Box) -> Tensor:
        """Random pixels, each component of them uniform in the box's width either way (clip it after)."""
        draw = uniform()
        rank = 1 + draw[:, : draw.shape[1] // self.channels]
        kept = self._keep(rank.repeat(1, self.channels) if self.channels > 1 else rank, radius)
        width = (box[1] - box[0]).nan_to_num(posinf=1.0)
        return torch.where(kept, torch.erf(normal() / math.sqrt(2)) * width, 0)


def _those(index: Tensor, x: Tensor, z: Tensor, radius: Tensor, box: Box) -> tuple[Tensor, Tensor, Tensor, Box]:
    """Some rows of a projection's arguments; all of them are not copied."""
    if len(index) == len(x):
        return x, z, radius, box
    low, high = (limit[index] if limit.dim() == 2 and len(limit) > 1 else limit for limit in box)
    return x[index], z[index], radius[index], (low, high)


def _scale(change: Tensor, limit: Tensor, radius: Tensor) -> Tensor:
    """The s in [0, 1] at which min(s·change, limit) has length radius, for rows where at 1 it is longer.

    Newton from below: with the components that the limit stops at this s held, the rest has a closed form, and s never
    overshoots; it ends when the set of stopped components no longer grows. 0 ≤ limit ≤ change.
    """
    stops_at = (limit / change).nan_to_num_(nan=1.0)
    square, held_square, r2 = change * change, limit * limit, radius * radius
    s = radius / torch.linalg.vector_norm(change, dim=1)
    while True:
        stopped = (stops_at < column(s)).to(change.dtype)
        held = torch.linalg.vecdot(stopped, held_square)
        moving = torch.linalg.vecdot(stopped.neg_().add_(1), square)
        longer = ((r2 - held).clamp_(min=0) / moving).sqrt_().nan_to_num_(nan=1.0).clamp_(max=1)
        done = bool((longer <= s * (1 + 4 * torch.finfo(s.dtype).eps)).all())
        s = torch.maximum(s, longer)
        if done:
            return s


def _threshold(change: Tensor, limit: Tensor, total: Tensor, radius: Tensor) -> Tensor:
    """The t > 0 at which the sum of min(max(change - t, 0), limit) is the radius, for rows where at 0 it is more: `total`.

    limit ≤ change.

    The sum falls piecewise linearly in t. Newton's step is exact on the right piece; a bracket guards it, since
    the limits make the sum neither convex nor concave.
    """
    low, high = torch.zeros_like(radius), change.amax(1)
    t = (total - radius) / (change > 0).sum(1)  # no slope is steeper than the count, so this is not past the root
    if bool((high > radius).any()):  # nor is this: one component that has the room may have all of the radius
        t = torch.maximum(t, torch.where(limit >= column(radius), change - column(radius), 0).amax(1))
    close = 8 * torch.finfo(change.dtype).eps * radius
    left, given = torch.empty_like(change), torch.empty_like(change)  # reused: fresh memory costs more than the sums
    for _ in range(100):
        torch.sub(change, column(t), out=left)
        torch.minimum(left, limit, out=given).clamp_(min=0)
        excess = given.sum(1) - radius
        found = excess.abs() <= close
        if bool(found.all()):
            break
        slope = (left > 0).logical_and_(left < limit).count_nonzero(1)
        newton = t + excess / slope
        found |= newton == t  # many radii away rounding leaves more than is close
        low, high = torch.where(excess > 0, t, low), torch.where(excess > 0, high, t)
        guarded = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        before, t = t, torch.where(found, t, guarded)
        if torch.equal(before, t):
            break
    return t


NORMS: dict[str, type[Norm]] = {"linf": LinfNorm, "l2": L2Norm, "l1": L1Norm, "l0": L0Norm}
