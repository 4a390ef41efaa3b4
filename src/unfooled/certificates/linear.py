"""Linear bounds (CROWN): a line under and over every curve, and the way back from an outcome to the image.

There the threat's set says how far a linear function can fall. Zhang et al. 2018, arXiv:1811.00866; Xu et al. 2020,
arXiv:2002.12920. The interval that goes into a curve is narrowed in the same way before its lines are drawn.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .bounds import Bounds, in_float64, interval, lines_of, lost, through_affine
from .graph import Network
from .local import Kept, locally
from .operations import Affine, Elementwise, Maximum
from .parallel import each
from .reach import Reach, dot

MEMORY = 1 << 24  # bytes of coefficients at a time: what a processor keeps near
TOGETHER = 1 << 22  # bytes up to which the coefficients of all images are computed at once
Slopes = dict[int, tuple[Tensor, Tensor]]
"""By number of a curve's outcome: the slopes of the lines under and over it, (n, rows, *shape)."""


def crown(network: Network, reach: Reach, unit: float) -> Bounds:
    """Intervals, each narrowed by linear bounds before it is used."""
    straight = _straight(network)
    return interval(network, reach, unit, lambda found, number: _narrow(found, number, straight))


def _straight(network: Network) -> list[bool]:
    """Of which outcomes the interval is exact already: those on whose way at most one step mixes numbers, and none bends."""
    mixing: list[int | None] = [0]  # None: bent, or joined
    for step in network.steps:
        before = [mixing[at] for at in step.inputs]
        if not isinstance(step.operation, Affine) or len(before) != 1 or before[0] is None:
            mixing.append(None)
        else:
            mixing.append(before[0] + step.operation.mixes)
    return [count is not None and count <= 1 for count in mixing]


def _narrow(found: Bounds, number: int, straight: list[bool]) -> None:
    """Narrow the interval of an outcome where a curve or a maximum bends within it."""
    if not isinstance(found.network.steps[number - 1].operation, Affine) or (straight[number] and found.reach.box):
        return
    wanted = _bent(found, number).flatten(1)
    chosen = wanted.any(0).nonzero().squeeze(1)
    if not len(chosen):
        return
    if linear_below(found.network, number) or 8 * 2 * len(wanted) * len(chosen) * _widest(found) <= TOGETHER:
        _narrow_together(found, number, chosen)
        return
    each(
        lambda row: _narrow_row(found, number, row, wanted[row].nonzero().squeeze(1)),
        wanted.any(1).nonzero().squeeze(1).tolist(),
    )


def _bent(found: Bounds, number: int) -> Tensor:
    """Which numbers of an outcome some step bends within their interval: (N, *shape)."""
    low, high = found.low[number], found.high[number]
    wanted = torch.zeros_like(low, dtype=torch.bool)
    for step in found.network.steps:
        if step.inputs[0] != number or isinstance(step.operation, Affine):
            continue
        if isinstance(step.operation, Maximum):
            best = step.operation.windows(low).amax(1, keepdim=True)
            beaten = step.operation.windows(high) <= best
            open_windows = (~beaten).sum(1, keepdim=True) > 1
            reached = (~beaten & open_windows).to(low.dtype)
            wanted |= step.operation.back(reached, low.shape[1:]) > 0
        elif step.operation.curve.straight:
            for at in step.operation.curve.breaks:
                wanted |= (low < at) & (high > at)
        else:
            wanted |= high > low
    return wanted


def linear_below(network: Network, number: int) -> bool:
    """Whether an outcome is an affine function of the image."""
    waiting = [number]
    while waiting:
        at = waiting.pop()
        if at:
            step = network.steps[at - 1]
            if not isinstance(step.operation, Affine):
                return False
            waiting += step.inputs
    return True


def _units(found: Bounds, number: int, chosen: Tensor, signs: Tensor) -> Tensor:
    """One row for each chosen number of an outcome, 1 or -1 there: (1, rows, *shape)."""
    shape = found.network.shape_of(number)
    rows = found.low[0].new_zeros((len(chosen), shape.numel()))
    rows[torch.arange(len(chosen)), chosen] = signs
    return rows.view(1, len(chosen), *shape)


def _widest(found: Bounds) -> int:
    return max(found.network.shape_of(at).numel() for at in range(len(found.network.steps) + 1))


def _chunks(found: Bounds, chosen: Tensor) -> tuple[Tensor, ...]:
    some: tuple[Tensor, ...] = chosen.split(max(1, MEMORY // (8 * 4 * _widest(found))))
    return some


def _narrow_row(found: Bounds, number: int, row: int, chosen: Tensor) -> None:
    """Linear bounds of some numbers of an outcome, for one image; from below only of those that are not cut off."""
    low, high = found.low[number][row].flatten(), found.high[number][row].flatten()
    cut = _cut_off(found.network, number)
    likely = (low + high)[chosen] <= 0 if cut else torch.zeros_like(chosen, dtype=torch.bool)
    ones = torch.ones(len(chosen), dtype=low.dtype)
    _improve(found, number, row, torch.cat([chosen, chosen[~likely]]), torch.cat([-ones, ones[~likely]]), low, high)
    left = chosen[likely & (high[chosen] > 0)]
    if len(left):
        _improve(found, number, row, left, ones[: len(left)], low, high)
    _store(found, number, row, low, high)


def _improve(found: Bounds, number: int, row: int, chosen: Tensor, signs: Tensor, low: Tensor, high: Tensor) -> None:
    """Raise `low` and lower `high`, flat, by linear bounds of numbers of an outcome times signs, for one image."""
    kept: Kept = {}
    for some, sign in zip(_chunks(found, chosen), _chunks(found, signs), strict=True):
        starts, offset = locally(found, number, some, sign, row, kept)
        least = back(found, starts, slice(row, row + 1))[0] + offset
        least = least - found.ours * found.size[number][row].flatten()[some]
        up, down = some[sign > 0], some[sign < 0]
        low[up] = torch.maximum(low[up], least[sign > 0])
        high[down] = torch.minimum(high[down], -least[sign < 0])


def _cut_off(network: Network, number: int) -> bool:
    """Whether nothing that reads an outcome sees how far below 0 it is: ReLUs alone."""
    readers = [step.operation for step in network.steps if number in step.inputs]
    return bool(readers) and all(isinstance(one, Elementwise) and one.curve.cuts for one in readers)


def _store(found: Bounds, number: int, row: int, low: Tensor, high: Tensor) -> None:
    middle = (low + high) / 2  # rounding may let them cross
    shape = found.network.shape_of(number)
    found.low[number][row] = torch.minimum(low, middle).view(shape)
    found.high[number][row] = torch.maximum(high, middle).view(shape)


def _narrow_together(found: Bounds, number: int, chosen: Tensor) -> None:
    """The same for all images at once: where no curve is below, as coefficients are theirs in common, or they are few."""
    for some in _chunks(found, chosen):
        low, high = found.low[number].flatten(1), found.high[number].flatten(1)
        ones = low.new_ones(len(some))
        rows = _units(found, number, some.repeat(2), torch.cat([ones, -ones]))
        least = back(found, {number: rows}, slice(None))
        least = least - found.ours * found.size[number].flatten(1)[:, some].repeat(1, 2)
        low[:, some] = torch.maximum(low[:, some], least[:, : len(some)])
        high[:, some] = torch.minimum(high[:, some], -least[:, len(some) :])
    for row in range(len(found.low[number])):
        _store(found, number, row, found.low[number][row].flatten(), found.high[number][row].flatten())


def back(found: Bounds, starts: dict[int, Tensor], images: slice, slopes: Slopes | None = None) -> Tensor:
    """Lower bounds of linear functions of outcomes: by number, rows (n or 1, rows, *shape); gives (n, rows).

    images:  which images;  slopes: to use instead of the usual ones under the curves.
    """
    pulled, offset, less = coefficients(found, starts, images, slopes)
    return found.reach.least(pulled, images) + offset - less


def least_logits(found: Bounds, rows: Tensor, images: slice, slopes: Slopes | None = None) -> Tensor:
    """Lower bounds of linear functions of the logits (n, rows, classes): (n, rows)."""
    return back(found, {len(found.network.steps): rows}, images, slopes) - in_float64(found, rows, images)


def coefficients(
    found: Bounds, starts: dict[int, Tensor], images: slice, slopes: Slopes | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear functions of the image that lie under linear functions of outcomes, by number (n or 1, rows, *shape).

    Coefficients (n or 1, rows, D), offsets, and what rounding may take away, (n or 1, rows) each.
    """
    steps = found.network.steps
    waiting = dict(starts)
    rows = next(iter(starts.values()))
    offset = less = rows.new_zeros(rows.shape[:2])
    for at in range(max(starts), 0, -1):
        if at not in waiting:
            continue
        gradient = waiting.pop(at)
        match steps[at - 1].operation:
            case Affine():
                pulled, constant, taken = through_affine(found, at, gradient, images)
            case Elementwise():
                pulled, constant, taken = _through_curve(found, at, gradient, images, slopes)
            case Maximum():
                pulled, constant, taken = _through_maximum(found, at, gradient, images)
        offset, less = offset + constant, less + taken
        for source, part in zip(steps[at - 1].inputs, pulled, strict=True):
            waiting[source] = waiting[source] + part if source in waiting else part
    size = found.network.shape.numel()
    image = waiting[0].flatten(2) if 0 in waiting else rows.new_zeros((*offset.shape, size))
    return image, offset, less


Through = tuple[tuple[Tensor, ...], Tensor, Tensor]


def _through_curve(found: Bounds, at: int, gradient: Tensor, images: slice, slopes: Slopes | None) -> Through:
    """As `through_affine`, for a curve: its lines take its place."""
    if slopes is not None and at in slopes:
        under, over = own_lines(found, at, slopes[at], images)
        constant = (gradient * torch.where(gradient > 0, under[1], over[1])).flatten(2).sum(2)
    else:
        lines = lines_of(found, at)
        under, over = ((slope[images, None], shift[images, None]) for slope, shift in (lines.under, lines.over))
        constant = gradient.new_zeros(gradient.shape[:2])
        for shift, part in ((under[1], partial(torch.clamp, min=0)), (over[1], partial(torch.clamp, max=0))):
            if bool(shift.any()):  # no line of a ReLU has one under it
                constant = constant + dot(part(gradient).flatten(2), shift.flatten(1))
    pulled = gradient * torch.where(gradient > 0, under[0], over[0])
    return (pulled,), constant, lost(found, at, gradient, images)


def own_lines(
    found: Bounds, at: int, slopes: tuple[Tensor, Tensor], images: slice
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The lines of these slopes (n, rows, *shape) under and over a curve, through which gradients flow: slopes, offsets."""
    step = found.network.steps[at - 1]
    assert isinstance(step.operation, Elementwise)
    curve = step.operation.curve
    low, high = (side[step.inputs[0]][images, None] for side in (found.low, found.high))
    lines = []
    for slope, touches in zip(slopes, curve.touches(low, high, slopes), strict=True):
        lines.append((slope, curve.function(touches) - slope * touches))
    return lines[0], lines[1]


def _through_maximum(found: Bounds, at: int, gradient: Tensor, images: slice) -> Through:
    """Under a maximum lies each of its numbers; over it, a mixture of them."""
    step = found.network.steps[at - 1]
    assert isinstance(step.operation, Maximum)
    source = step.inputs[0]
    low, high = (step.operation.windows(side[source][images]) for side in (found.low, found.high))
    under = torch.zeros_like(low).scatter_(1, (low + high).argmax(1, keepdim=True), 1.0)
    over, shift = _over_maximum(low, high)
    up, down = gradient.clamp(min=0), gradient.clamp(max=0)
    windows = up[:, :, None] * under[:, None] + down[:, :, None] * over[:, None]
    shape = found.network.shape_of(source)
    pulled = step.operation.back(windows.flatten(0, 1), shape)
    constant = (down * shift[:, None]).flatten(2).sum(2)
    return (pulled.view(*windows.shape[:2], *shape),), constant, torch.zeros_like(constant)


def _over_maximum(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """A linear function over the largest of k numbers: weights (N, k, *out) and an offset (N, *out).

    From pair to pair: max(a, b) = b + relu(a - b), under the chord of that ReLU. Where a constant is nearer in the mean, it.
    """
    parts = [
        (
            low[:, i],
            high[:, i],
            torch.zeros_like(low).index_fill_(1, torch.tensor([i]), 1.0),
            torch.zeros_like(low[:, 0]),
        )
        for i in range(low.shape[1])
    ]
    while len(parts) > 1:
        joined = [_pair(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        parts = joined + parts[len(parts) // 2 * 2 :]
    _, top, weights, shift = parts[0]
    mean = (weights * (low + high) / 2).sum(1) + shift
    constant = top < mean
    return torch.where(constant[:, None], 0, weights), torch.where(constant, top, shift)


Part = tuple[Tensor, Tensor, Tensor, Tensor]


def _pair(a: Part, b: Part) -> Part:
    least, most = a[0] - b[1], a[1] - b[0]
    share = (most / torch.where(most > least, most - least, 1)).clamp(0, 1)
    share = torch.where(least >= 0, 1.0, torch.where(most <= 0, 0.0, share))
    spread = torch.where((least < 0) & (most > 0), -share * least, 0.0)
    weights = share[:, None] * a[2] + (1 - share)[:, None] * b[2]
    shift = share * a[3] + (1 - share) * b[3] + spread
    return torch.maximum(a[0], b[0]), torch.maximum(a[1], b[1]), weights, shift
