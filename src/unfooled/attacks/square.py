"""Square: random search with square windows, by scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import margin, shifted
from ..models.access import Access
from ..oracle import ScoreQuery
from ..threats import L1, L2, Linf, Threat
from .base import Attack, State, check_count, check_number, rows

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the candidates after which p is halved
FAR = 1000.0  # a change that many times as long, projected, has length eps unless the whole box is shorter (L2)


def planes(shape: torch.Size) -> tuple[int, int, int]:
    """An example's channels, height and width; (D,) is one channel and (C, T) is C channels, of height 1."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def sides(height: int, width: int, area: float, odd: bool) -> tuple[int, int]:
    """Height and width of a window of about that area: a square, or what fits of it where one side is too short."""
    short, long = sorted((height, width))

    def side(length: float, most: int) -> int:
        n = max(round(length), 3 if odd else 1)
        return min(n + (odd and n % 2 == 0), most)

    a = side(math.sqrt(area), short)
    b = side(math.sqrt(area) if math.sqrt(area) <= short else area / a, long)
    return (a, b) if height <= width else (b, a)


@lru_cache(maxsize=64)
def schedule(height: int, width: int, area: float, odd: bool) -> tuple[tuple[int, int], ...]:
    """The window's sides before the area is halved for the first time, and after each time."""
    return tuple(sides(height, width, area / 2**n, odd) for n in range(len(HALVED) + 1))


def pyramid(height: int, width: int) -> Tensor:
    """Falling from its middle in square rings, by 1/n² from the n-th ring to the next: (height, width), float64."""
    r, c = ((torch.arange(n) - n // 2).abs() for n in (height, width))
    rings = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** 2
    ring = rings.flip(0).cumsum(0).flip(0)[torch.maximum(r[:, None], c)]
    return F.normalize(ring.flatten(), dim=0).view(height, width)


def tile(height: int, width: int, across: bool) -> Tensor:
    """Two pyramids of opposite sign, one above the other or (`across`) side by side, of Euclidean length 1."""
    if (across and width > 1) or height == 1:
        return tile(width, height, False).T if width > 1 else torch.ones(1, 1, dtype=torch.float64)
    half = height // 2
    both = torch.cat([pyramid(half, width), -pyramid(height - half, width)])
    return F.normalize(both.flatten(), dim=0).view(height, width)


@lru_cache(maxsize=64)
def tiles(windows: tuple[tuple[int, int], ...], dtype: torch.dtype) -> Tensor:
    """The tiles of these windows, upright and across, filled up with zeros: (2·windows, most rows, most columns)."""
    stack = torch.zeros(2 * len(windows), max(h for h, _ in windows), max(w for _, w in windows), dtype=dtype)
    for at, (h, w) in enumerate(windows):
        stack[2 * at, :h, :w] = tile(h, w, across=False)
        stack[2 * at + 1, :h, :w] = tile(h, w, across=True)
    return stack


@lru_cache(maxsize=64)
def table(values: tuple[object, ...], device: torch.device) -> Tensor:
    """Numbers as a tensor."""
    return torch.tensor(values, device=device)


@dataclass(frozen=True, kw_only=True)
class SquareState(State):
    """best: the best point so far;  loss: (B,) its loss."""

    best: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Square(Attack):
    """Square attack: random search that changes one random square at a time. Andriushchenko et al. 2020,
    arXiv:1912.00049, Algorithms 1 to 3; for L1 as in Croce & Hein 2021, arXiv:2103.01208.

    Scores alone steer it, so masked gradients do not matter to it. A candidate is kept where it does not lower the
    margin. Every row draws its own window and signs, and a window may lie anywhere up to the last row and column; its
    side is √(p·pixels), and for inputs without height it is a stretch of p·pixels. It starts from vertical stripes
    (Linf) or from a grid of 5 × 5 tiles (L2, L1).

        Linf:    window ← x ± eps, one sign for each channel
        L2, L1:  window ← tile + old change there, as long as the change in both windows; other window ← x

    steps:   queries per trial. 5000: AutoAttack (Croce & Hein 2020, arXiv:2003.01690).
    p_init:  share of the pixels in the first windows; halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000
             candidates. 0.8: AutoAttack, which does not stretch that schedule over the steps either.

    Fails: needs thousands of queries where gradients need tens; blind where scores are constant (saturated
    probabilities, labels), misled where they are random.
    """

    steps: int = 5000
    p_init: float = 0.8

    name: ClassVar[str] = "square"
    access: ClassVar[Access] = Access.SCORE
    norms: ClassVar[tuple[type[Threat], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        check_count(self, "steps")
        check_number(self, "p_init", "(0, 1]")

    def init(self, q: ScoreQuery, x: Tensor) -> SquareState:
        """Stripes or tiles."""
        start = stripes(q) if isinstance(q.threat, Linf) else grid(q)
        return SquareState(x=start, best=start, loss=x.new_full((len(x),), -torch.inf))

    def step(self, q: ScoreQuery, s: SquareState) -> SquareState:
        """Ask about the candidate, keep it if it is no worse, and change a window of the better one."""
        loss = margin(shifted(q.scores(s.x)), q.goal)
        better = loss >= s.loss
        best = torch.where(rows(better, s.x), s.x, s.best)
        window = Windows(q, s.k + 1, self.p_init)
        asked = squares(window, best) if isinstance(q.threat, Linf) else moved(window, best)
        ended = rows(s.k + 1 == self.steps, best)
        return replace(s, x=torch.where(ended, best, asked), best=best, loss=torch.where(better, loss, s.loss))


class Windows:
    """Each row's windows at its look k (B,): their level, sides (B, 2), and draws (B, 8 + channels)."""

    def __init__(self, q: ScoreQuery, k: Tensor, p_init: float) -> None:
        self.q, self.device = q, q.x.device
        self.channels, self.height, self.width = planes(q.x.shape[1:])
        self.mask = self.free = None
        if q.threat.mask is not None:
            self.mask = q.threat.mask.to(self.device).expand(q.x.shape[1:]).reshape(self.channels, -1)
            self.free = self.mask.any(0).nonzero().squeeze(1)
        pixels = self.height * self.width if self.free is None else len(self.free)
        self.all_sides = schedule(self.height, self.width, p_init * pixels, not isinstance(q.threat, Linf))
        # look 0 is at the start, look 1 at candidate 0
        self.level = torch.bucketize(k - 1, table(HALVED, self.device))
        self.size = table(self.all_sides, self.device)[self.level]
        self.most = self.size.amax(0).tolist()
        self.draw = q.uniform(k, shape=(8 + self.channels,))
        r, c = (table(tuple(range(n)), self.device) for n in self.most)
        self.offset = (r[:, None] * self.width + c).view(1, -1)
        self.within = ((r < self.size[:, :1])[:, :, None] & (c < self.size[:, 1:])[:, None, :]).flatten(1)

    def pixels(self, which: int) -> Tensor:
        """The first or second window's pixels by number (B, P); where P is more than it has, its first one again.

        The window lies anywhere in the image; with a mask, anywhere over a pixel that may change.
        """
        draw = self.draw[:, 3 * which : 3 * which + 3]
        last = table((self.height, self.width), self.device) - self.size
        if self.free is None or not len(self.free):
            first = (draw[:, :2] * (last + 1)).long()
        else:
            pixel = self.free[(draw[:, 2] * len(self.free)).long()]
            first = torch.stack([pixel // self.width, pixel % self.width], 1) - (draw[:, :2] * self.size).long()
        first = torch.minimum(first.clamp(min=0), last)
        return torch.where(self.within, self.offset, 0) + first[:, :1] * self.width + first[:, 1:]

    def take(self, points: Tensor, pixels: Tensor) -> Tensor:
        """The values at these pixels: (B, *shape), (B, P) to (B, channels, P)."""
        return self.flat(points).gather(2, self.spread(pixels))

    def limit(self, bound: Tensor, pixels: Tensor) -> Tensor:
        """The box's limit at these pixels, to compare (B, channels, P) with."""
        if bound.numel() == 1:
            return bound
        return self.take(bound.expand_as(self.q.x.flatten(1)), pixels)

    def put(self, points: Tensor, pixels: Tensor, values: Tensor) -> Tensor:
        """A copy of the points (B, *shape) with other values (B, channels, P) at these pixels."""
        return self.flat(points).scatter(2, self.spread(pixels), values).view(points.shape)

    def flat(self, points: Tensor) -> Tensor:
        """(B, *shape) to (B, channels, pixels)."""
        return points.reshape(len(points), self.channels, -1)

    def spread(self, pixels: Tensor) -> Tensor:
        """The same pixels in every channel."""
        return pixels[:, None].expand(-1, self.channels, -1)


def ends(q: ScoreQuery) -> tuple[Tensor, Tensor]:
    """The lowest and the highest point of the Linf ball and box, (B, *shape) each."""
    low, high = q.threat.box(q.x)
    x, eps = q.x.flatten(1), q.threat.eps
    return torch.maximum(x - eps, low).view_as(q.x), torch.minimum(x + eps, high).view_as(q.x)


def stripes(q: ScoreQuery) -> Tensor:
    """Linf: x ± eps, one sign for each column and channel."""
    channels, height, width = planes(q.x.shape[1:])
    up = q.uniform(0, shape=(channels, 1, width)) < 0.5
    low, high = ends(q)
    return torch.where(up.expand(-1, -1, height, -1).reshape(q.x.shape), high, low)


def squares(w: Windows, best: Tensor) -> Tensor:
    """Linf: the window at x ± eps; where that is what is there, with the opposite signs."""
    pixels = w.pixels(0)
    x, (low, high) = w.take(w.q.x, pixels), (w.limit(bound, pixels) for bound in w.q.threat.box(w.q.x))
    low, high = torch.maximum(x - w.q.threat.eps, low), torch.minimum(x + w.q.threat.eps, high)
    up = w.draw[:, 8:, None] < 0.5
    same = (torch.where(up, high, low) == w.take(best, pixels)).flatten(1).all(1)
    return w.put(best, pixels, torch.where(up ^ same[:, None, None], high, low))


def power(q: ScoreQuery) -> int:
    """The p of the norm: changes add up by the p-th power of their lengths."""
    return 1 if isinstance(q.threat, L1) else 2


def full(q: ScoreQuery, delta: Tensor) -> Tensor:
    """The image changed in that direction to the length eps; L2: also where the box cuts some of it off.

    In L1 the projection of a point far away would keep only its largest components, so eps is as far as it goes.
    """
    if power(q) == 2:
        return q.threat.project(q.x + FAR * delta, q.x)
    size = q.threat.size(delta).clamp(min=torch.finfo(delta.dtype).tiny)
    return q.threat.project(q.x + delta * rows(q.threat.eps / size, delta), q.x)


def grid(q: ScoreQuery) -> Tensor:
    """L2 and L1: tiles of random sign and direction, 5 × 5 of them or as many as there are pixels."""
    channels, height, width = planes(q.x.shape[1:])
    many = min(5, height), min(5, width)
    side = height // many[0], width // many[1]
    at = [
        torch.arange(n, device=q.x.device) - (n - m * s) // 2
        for n, m, s in zip((height, width), many, side, strict=True)
    ]
    on = [(a >= 0) & (a < m * s) for a, m, s in zip(at, many, side, strict=True)]
    cell = [(a // s).clamp(0, m - 1) for a, m, s in zip(at, many, side, strict=True)]
    draw = (q.uniform(0, shape=(1 + channels, *many)) < 0.5)[:, :, cell[0]][..., cell[1]]
    upright, across = (t[at[0] % side[0]][:, at[1] % side[1]] for t in tiles((side,), q.x.dtype).to(q.x.device))
    delta = torch.where(draw[:, :1], upright, across) * torch.where(draw[:, 1:], 1, -1) * (on[0][:, None] & on[1])
    delta = delta.reshape(q.x.shape)
    return full(q, q.threat.eps * (delta if q.threat.mask is None else delta * q.threat.mask.to(delta.device)))


def moved(w: Windows, best: Tensor) -> Tensor:
    """L2 and L1: a tile is added in one window, which gets the length of its change and that of another, now emptied."""
    q, p, tiny = w.q, power(w.q), torch.finfo(best.dtype).tiny
    into, out = w.pixels(0), w.pixels(1)
    kind = 2 * w.level + (w.draw[:, 6] < 0.5)
    added = tiles(w.all_sides, best.dtype).to(w.device)[:, : w.most[0], : w.most[1]][kind].flatten(1)[:, None]
    added = added * torch.where(w.draw[:, 8:, None] < 0.5, 1, -1)
    if w.mask is not None:
        added = added * w.mask[:, into].transpose(0, 1)
    delta = best - q.x
    left = (q.threat.eps**p - q.threat.size(delta) ** p).clamp(min=0) / w.channels  # cut off by the box
    there = w.take(delta, into) * w.within[:, None]
    delta = w.put(delta, into, torch.zeros_like(there))
    moving = w.take(delta, out) * w.within[:, None]
    delta = w.put(delta, out, torch.zeros_like(moving))
    mix = added + there / _length(there, p).clamp(min=tiny)
    mix = torch.where(_length(mix, p) > 1e-6, mix, added)
    mass = (left[:, None, None] + _length(there, p) ** p + _length(moving, p) ** p) ** (1 / p)
    mix = mix * (mass / _length(mix, p).clamp(min=tiny)) * w.within[:, None]
    return full(q, w.flat(delta).scatter_add(2, w.spread(into), mix).view_as(best))


def _length(delta: Tensor, p: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta, p, dim=2, keepdim=True)
    return length
