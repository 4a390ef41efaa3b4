"""Intervals for every outcome of a network over a set of inputs (IBP), and what rounding does to them.

Gowal et al. 2018, arXiv:1810.12715: an interval goes through every step. The network that is bounded is the one that runs:
each step is its exact function and a rounding error, of which an a-priori bound is known (Higham 2002, section 3.1: a sum
of n products is off by at most γ_n = n·u/(1 - n·u) times the sum of their sizes, in whatever order it is made; that is not
so for products in less than float32, as TF32, nor for Winograd's convolutions). The bounds themselves are computed in
float64, and widened by what that rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .graph import Network
from .operations import Affine, Elementwise, Maximum
from .reach import Reach, dot

SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # units of rounding
FEW = 8  # roundings of an activation function, and of a step beside those of its sum
OURS = 8.0  # times the rounding of one pass in float64: what a bound takes


@dataclass
class Lines:
    """A line under and one over a curve, (images, *shape) each: slope·x + offset."""

    under: tuple[Tensor, Tensor]
    over: tuple[Tensor, Tensor]


@dataclass
class Bounds:
    """What is known of every outcome of a network over a set round each image; all (N, *shape) float64, by number.

    low, high:  between which it lies, as the network computes it.
    rounding:   how far the step that makes it rounds, at most.
    size:       the sum of the sizes of all products that it is made of: what errors in float64 go by.
    unit:       of the network's own rounding.
    """

    network: Network
    reach: Reach
    unit: float
    low: list[Tensor]
    high: list[Tensor]
    rounding: list[Tensor]
    size: list[Tensor]
    terms: float = 0.0
    lines: dict[int, Lines] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)

    @property
    def ours(self) -> float:
        """What share of an outcome's size a bound in float64 may be off by."""
        return OURS * (self.terms + FEW * len(self.low)) * DOUBLE

    def constant(self, number: int) -> Tensor:
        """What an affine step makes of zeros, (1, *shape); computed once."""
        if number not in self.constants:
            step = self.network.steps[number - 1]
            assert isinstance(step.operation, Affine)
            self.constants[number] = step.operation.constant(*(self.low[source] for source in step.inputs))
        return self.constants[number]

    def only(self, index: Tensor) -> Bounds:
        """The same of some of the images."""
        low, high, rounding, size = (
            [one[index] for one in side] for side in (self.low, self.high, self.rounding, self.size)
        )
        lines = {at: Lines(*((a[index], b[index]) for a, b in (one.under, one.over))) for at, one in self.lines.items()}
        return Bounds(self.network, self.reach.only(index), self.unit, low, high, rounding, size, self.terms, lines)


def interval(
    network: Network, reach: Reach, unit: float, tighter: Callable[[Bounds, int], None] | None = None
) -> Bounds:
    """Intervals for every outcome; `tighter` may narrow one before the steps that bend it use it."""
    low, high = reach.hull()
    found = Bounds(network, reach, unit, [low], [high], [torch.zeros_like(low)], [torch.maximum(low.abs(), high.abs())])
    bent = {step.inputs[0] for step in network.steps if not isinstance(step.operation, Affine)}
    for number, step in enumerate(network.steps, 1):
        lows, highs, sizes = ([side[at] for at in step.inputs] for side in (found.low, found.high, found.size))
        match step.operation:
            case Affine() as affine:
                low, high = _affine(affine, lows, highs)
                found.rounding.append(_sum_rounding(affine, lows, highs, unit))
                found.size.append(affine.absolute(*sizes) + affine.constant(*lows).abs() + affine.beside)
                found.terms += affine.terms
            case Elementwise(curve=curve):
                low, high = curve.range(lows[0], highs[0])
                found.rounding.append(_curve_rounding(step.operation, lows[0], highs[0], unit))
                found.size.append(curve.gain * sizes[0] + curve.function(torch.zeros_like(low)).abs())
            case Maximum() as maximum:
                low, high = maximum.windows(lows[0]).amax(1), maximum.windows(highs[0]).amax(1)
                found.rounding.append(torch.zeros_like(low))
                found.size.append(maximum.windows(sizes[0]).amax(1))
        wider = found.rounding[-1] + found.ours * found.size[-1]
        found.low.append(low - wider)
        found.high.append(high + wider)
        if tighter is not None and number in bent:
            tighter(found, number)
    return found


def _affine(affine: Affine, lows: list[Tensor], highs: list[Tensor]) -> tuple[Tensor, Tensor]:
    centre = affine.function(*((a + b) / 2 for a, b in zip(lows, highs, strict=True)))
    radius = affine.absolute(*((b - a) / 2 for a, b in zip(lows, highs, strict=True)))
    return centre - radius, centre + radius


def _sum_rounding(affine: Affine, lows: list[Tensor], highs: list[Tensor], unit: float) -> Tensor:
    most = [torch.maximum(low.abs(), high.abs()) for low, high in zip(lows, highs, strict=True)]
    if not affine.terms:
        return torch.zeros_like(affine.function(*lows))
    count = (affine.terms + FEW) * unit
    return count / (1 - count) * (affine.absolute(*most) + affine.constant(*lows).abs() + affine.beside)


def _curve_rounding(operation: Elementwise, low: Tensor, high: Tensor, unit: float) -> Tensor:
    if operation.curve.exact:
        return torch.zeros_like(low)
    most = torch.maximum(low.abs(), high.abs())
    return FEW * unit * (operation.curve.gain * most + operation.curve.function(torch.zeros_like(low)).abs())


def through_affine(
    found: Bounds, at: int, gradient: Tensor, images: slice
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Coefficients (n or 1, rows, *shape) of what an affine step makes, as coefficients of what it is made from.

    Also what is constant in them, and how much rounding may take away, (n, rows) each.
    """
    step = found.network.steps[at - 1]
    assert isinstance(step.operation, Affine)
    flat = gradient.reshape(-1, *gradient.shape[2:])
    pulled = step.operation.back(flat, tuple(found.network.shape_of(source) for source in step.inputs))
    total = gradient.flatten(2) @ found.constant(at).flatten()
    return (
        tuple(part.reshape(*gradient.shape[:2], *part.shape[1:]) for part in pulled),
        total,
        lost(found, at, gradient, images),
    )


def lost(found: Bounds, at: int, gradient: Tensor, images: slice) -> Tensor:
    """How far rounding in an outcome can lower linear functions of it (n or 1, rows, *shape): (n, rows)."""
    amount = found.rounding[at][images].flatten(1)
    if not bool(amount.any()):
        return gradient.new_zeros(gradient.shape[:2])
    return dot(gradient.abs().flatten(2), amount)


def lines_of(found: Bounds, at: int) -> Lines:
    """The lines under and over a curve, from the interval that goes into it; made once."""
    if at not in found.lines:
        step = found.network.steps[at - 1]
        assert isinstance(step.operation, Elementwise)
        low, high = found.low[step.inputs[0]], found.high[step.inputs[0]]
        curve = step.operation.curve
        under, over = curve.slopes(low, high)
        least, most = curve.touches(low, high, (under, over))
        found.lines[at] = Lines(
            (under, curve.function(least) - under * least), (over, curve.function(most) - over * most)
        )
    return found.lines[at]


def by_intervals(found: Bounds, rows: Tensor, images: slice) -> Tensor:
    """Lower bounds of linear functions of the logits (n, rows, classes), from the intervals before the last affine steps."""
    waiting = {len(found.network.steps): rows}
    total = rows.new_zeros(rows.shape[:2])
    for at in range(len(found.network.steps), -1, -1):
        if at not in waiting:
            continue
        gradient = waiting.pop(at)
        if at and isinstance(found.network.steps[at - 1].operation, Affine):
            pulled, constant, less = through_affine(found, at, gradient, images)
            total = total + constant - less
            for source, part in zip(found.network.steps[at - 1].inputs, pulled, strict=True):
                waiting[source] = waiting[source] + part if source in waiting else part
        else:
            low, high = (side[at][images, None] for side in (found.low, found.high))
            total = total + (gradient.clamp(min=0) * low + gradient.clamp(max=0) * high).flatten(2).sum(2)
    return total - in_float64(found, rows, images)


def in_float64(found: Bounds, rows: Tensor, images: slice) -> Tensor:
    """How far off bounds of linear functions of the logits (n, rows, classes) may be by rounding in float64: (n, rows)."""
    return found.ours * dot(rows.abs(), found.size[-1][images])
