"""Activation functions as the bounds need them: their extremes over an interval, after a line is taken away.

Whatever slope a line has, the smallest and the largest value of f(x) - slope·x over [low, high] put it under and over the
curve. So every slope gives a sound bound, and the best one may be searched for without care.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

HALVINGS = 60  # of an interval, until a point is known to rounding
CHOOSING = 14  # of the slopes that are tried


@dataclass(frozen=True)
class Curve:
    """An elementwise function.

    function, derivative:  of a tensor; at a kink either slope.
    breaks:     the points between which the derivative is monotone or constant: kinks and inflections.
    flattest, steepest:  the smallest and the largest derivative.
    convex:     True, False (concave), None: neither.
    straight:   whether it is linear between the breaks.
    exact:      whether computers do not round it.
    level:      of a derivative that is even and falls from 0 on: where, at 0 or above, it has a value; None: is searched for.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    breaks: tuple[float, ...] = ()
    flattest: float = 0.0
    steepest: float = 1.0
    convex: bool | None = None
    straight: bool = False
    exact: bool = False
    level: Callable[[Tensor], Tensor] | None = None

    @property
    def gain(self) -> float:
        """How many times farther apart two values can be than the numbers that they are of."""
        return max(abs(self.flattest), abs(self.steepest))

    @property
    def cuts(self) -> bool:
        """Whether it is 0 below 0, as ReLU is."""
        return self.straight and self.exact and self.breaks == (0.0,) and self.flattest == 0.0 and self.convex is True

    def extremes(self, low: Tensor, high: Tensor, slope: Tensor, halvings: int = HALVINGS) -> tuple[Tensor, Tensor]:
        """Where in [low, high] f(x) - slope·x is smallest, and where largest; found by so many halvings."""
        with torch.no_grad():
            low, high = low.expand_as(slope), high.expand_as(slope)
            points = [low, high, *(torch.full_like(low, at).clamp(low, high) for at in self.breaks)]
            if self.level is not None:
                there = self.level(slope)
                points += [there.clamp(low, high), (-there).clamp(low, high)]
            elif not self.straight:
                ends = torch.stack([low, *points[2:], high])
                points += self._search(ends[:-1], ends[1:], slope, halvings)
            values = [self.function(point) - slope * point for point in points]
            smallest, largest = (values[0], points[0]), (values[0], points[0])
            for value, point in zip(values[1:], points[1:], strict=True):
                smallest = _pick(value < smallest[0], (value, point), smallest)
                largest = _pick(value > largest[0], (value, point), largest)
            return smallest[1], largest[1]

    def _search(self, a: Tensor, b: Tensor, slope: Tensor, halvings: int) -> Tensor:
        """A point of [a, b], within which the derivative is monotone, where it has that slope; an end if it never has."""
        rising = self.derivative(b) >= self.derivative(a)
        for _ in range(halvings):
            middle = (a + b) / 2
            further = (self.derivative(middle) < slope) == rising
            a, b = torch.where(further, middle, a), torch.where(further, b, middle)
        return b

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value over [low, high]."""
        if self.flattest >= 0:
            return self.function(low), self.function(high)
        least, most = self.extremes(low, high, torch.zeros_like(low))
        return self.function(least), self.function(most)

    def slopes(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of the lines under and over the curve that are nearest to it in the mean over [low, high]."""
        middle = (low + high) / 2
        if self.convex is not None:
            near, chord = self.derivative(middle), self._chord(low, high)
            return (near, chord) if self.convex else (chord, near)
        return self._nearest(low, high, middle)

    def _chord(self, low: Tensor, high: Tensor) -> Tensor:
        width = high - low
        rise = self.function(high) - self.function(low)
        chord = (rise / torch.where(width > 0, width, 1)).clamp(self.flattest, self.steepest)
        if self.straight and len(self.breaks) == 1:  # to the bit where nothing is bent
            bent = (low < self.breaks[0]) & (high > self.breaks[0])
            return torch.where(bent, chord, self.derivative((low + high) / 2))
        return torch.where(width > 0, chord, self.derivative(low))

    def _nearest(self, low: Tensor, high: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of the envelopes in the middle: a line's mean over the interval is its value there."""
        least, most = (torch.stack([torch.full_like(low, end)] * 2) for end in (self.flattest, self.steepest))
        for _ in range(CHOOSING):
            slope = (least + most) / 2
            under, over = self.touches(low, high, (slope[0], slope[1]), CHOOSING)
            steeper = torch.stack([under <= middle, over > middle])
            least, most = torch.where(steeper, slope, least), torch.where(steeper, most, slope)
        slope = (least + most) / 2
        return slope[0], slope[1]

    def touches(
        self, low: Tensor, high: Tensor, slopes: tuple[Tensor, Tensor], halvings: int = HALVINGS
    ) -> tuple[Tensor, Tensor]:
        """Where in [low, high] a line of the first slope touches the curve from below, one of the second from above."""
        least, most = self.extremes(low.expand_as(slopes[0]), high.expand_as(slopes[0]), torch.stack(slopes), halvings)
        return least[0], most[1]


def _pick(where: Tensor, new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.where(where, new[0], old[0]), torch.where(where, new[1], old[1])


def relu() -> Curve:
    """max(x, 0)."""
    return Curve(torch.relu, lambda x: (x > 0).to(x.dtype), (0.0,), convex=True, straight=True, exact=True)


def leaky_relu(negative: float) -> Curve:
    """x, times `negative` below 0."""

    def derivative(x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.ones_like(x), negative)

    function = partial(F.leaky_relu, negative_slope=negative)
    return Curve(function, derivative, (0.0,), min(1.0, negative), max(1.0, negative), negative <= 1, True)


def clamp(least: float, most: float) -> Curve:
    """x cut off at one end or both: ReLU6, hardtanh."""
    breaks = tuple(end for end in (least, most) if math.isfinite(end))
    kind = None if len(breaks) == 2 else math.isfinite(least)

    def derivative(x: Tensor) -> Tensor:
        return ((x > least) & (x < most)).to(x.dtype)

    exact = all(float(torch.tensor(end)) == end for end in breaks)  # whether the ends are numbers of float32
    return Curve(lambda x: x.clamp(least, most), derivative, breaks, convex=kind, straight=True, exact=exact)


def absolute() -> Curve:
    """|x|."""
    return Curve(torch.abs, lambda x: torch.where(x > 0, torch.ones_like(x), -1.0), (0.0,), -1.0, 1.0, True, True, True)


def _tanh_level(slope: Tensor) -> Tensor:
    """Where 1 - tanh(x)² has a value."""
    share = slope.clamp(0, 1)
    return torch.log1p((1 - share).sqrt()) - share.log() / 2


def tanh() -> Curve:
    """tanh(x)."""
    return Curve(torch.tanh, lambda x: 1 - torch.tanh(x) ** 2, (0.0,), level=_tanh_level)


def _sigmoid_level(slope: Tensor) -> Tensor:
    return 2 * _tanh_level(4 * slope)  # sigmoid(x) = (1 + tanh(x/2))/2


def sigmoid() -> Curve:
    """1/(1 + exp(-x))."""
    return Curve(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), (0.0,), 0.0, 0.25, level=_sigmoid_level)


def gelu() -> Curve:
    """x·Phi(x). Its second derivative is (2 - x²)·phi(x), so it bends at ±√2."""

    def derivative(x: Tensor) -> Tensor:
        density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        below: Tensor = torch.special.ndtr(x)
        return below + x * density

    return Curve(F.gelu, derivative, (-math.sqrt(2.0), math.sqrt(2.0)), -0.13, 1.13)


@cache
def gelu_by_tanh() -> Curve:
    """The approximation x/2·(1 + tanh(√(2/pi)·(x + 0.044715·x³)))."""
    root, cubic = math.sqrt(2 / math.pi), 0.044715

    def derivative(x: Tensor) -> Tensor:
        t = torch.tanh(root * (x + cubic * x**3))
        return (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * cubic * x * x)

    bend = _bend(derivative, 1.0, 2.0)
    return Curve(partial(F.gelu, approximate="tanh"), derivative, (-bend, bend), -0.13, 1.13)


@cache
def silu() -> Curve:
    """x·sigmoid(x)."""

    def derivative(x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        return s + x * s * torch.sigmoid(-x)

    bend = _bend(derivative, 2.0, 3.0)
    return Curve(F.silu, derivative, (-bend, bend), -0.1, 1.1)


def _bend(derivative: Callable[[Tensor], Tensor], a: float, b: float) -> float:
    """Where in [a, b] a derivative is largest: its own derivative, falling, is zero."""
    for _ in range(HALVINGS):
        middle = torch.tensor((a + b) / 2, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (second,) = torch.autograd.grad(derivative(middle), middle)
        a, b = ((a + b) / 2, b) if second > 0 else (a, (a + b) / 2)
    return (a + b) / 2


def softplus(sharpness: float, threshold: float) -> Curve:
    """log(1 + exp(sharpness·x))/sharpness; beyond the threshold torch goes over to x itself, a little step down."""
    function = partial(F.softplus, beta=sharpness, threshold=threshold)
    step = threshold / sharpness

    def derivative(x: Tensor) -> Tensor:
        return torch.where(sharpness * x > threshold, 1.0, torch.sigmoid(sharpness * x))

    fall = -torch.finfo(torch.float32).eps  # because of that step its values do not only rise
    return Curve(function, derivative, (step, math.nextafter(step, math.inf)), flattest=fall, convex=True)


def elu(alpha: float, scale: float) -> Curve:
    """scale·x above 0, scale·alpha·(exp(x) - 1) below it."""

    def function(x: Tensor) -> Tensor:
        return scale * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))

    def derivative(x: Tensor) -> Tensor:
        return scale * torch.where(x > 0, 1.0, alpha * torch.exp(x.clamp(max=0)))

    ends = (0.0, scale, scale * alpha)
    kind = True if 0 <= alpha <= 1 and scale >= 0 else None
    return Curve(function, derivative, (0.0,), min(ends), max(ends), kind)
