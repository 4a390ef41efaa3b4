"""Linear bounds (CROWN): a line under and over every curve, and the way back from an outcome to the image.

There the threat's set says how far a linear function can fall. Zhang et al. 2018, arXiv:1811.00866; Xu et al. 2020,
arXiv:2002.12920. The interval that goes into a curve is narrowed in the same way before its lines are drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bounds import Bounds, Lines, in_float64, interval, lost, through_affine
from .graph import Network, Step
from .operations import Affine, Elementwise, Maximum
from .patches import Patches
from .reach import Reach

MEMORY = 1 << 28  # bytes of coefficients at a time
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
    wanted = _bent(found, number)
    if not linear_below(found.network, number):
        for row in range(len(wanted)):
            chosen = wanted[row].flatten().nonzero().squeeze(1)
            if len(chosen):
                _narrow_row(found, number, row, chosen)
        return
    chosen = wanted.flatten(1).any(0).nonzero().squeeze(1)
    if len(chosen):
        _narrow_linear(found, number, chosen)


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


def _units(found: Bounds, number: int, chosen: Tensor) -> Tensor:
    """One row for each chosen number of an outcome: (1, rows, *shape)."""
    shape = found.network.shape_of(number)
    rows = found.low[0].new_zeros((len(chosen), shape.numel()))
    rows[torch.arange(len(chosen)), chosen] = 1
    return rows.view(1, len(chosen), *shape)


def _chunks(found: Bounds, chosen: Tensor) -> tuple[Tensor, ...]:
    widest = max(found.network.shape_of(at).numel() for at in range(len(found.network.steps) + 1))
    some: tuple[Tensor, ...] = chosen.split(max(1, MEMORY // (8 * 4 * widest)))
    return some


def _narrow_row(found: Bounds, number: int, row: int, chosen: Tensor) -> None:
    """Linear bounds of some numbers of an outcome, for one image."""
    low, high = found.low[number][row].flatten(), found.high[number][row].flatten()
    for some in _chunks(found, chosen):
        start, rows, offset, both = locally(found, number, some, row)
        least = back(found, start, rows, slice(row, row + 1), both)[0] + offset
        least = least - found.ours * found.size[number][row].flatten()[some].repeat(2)
        low[some] = torch.maximum(low[some], least[: len(some)])
        high[some] = torch.minimum(high[some], -least[len(some) :])
    _store(found, number, row, low, high)


def locally(found: Bounds, number: int, chosen: Tensor, row: int) -> tuple[int, Tensor, Tensor, bool]:
    """The way back from some numbers of an outcome as long as it stays within small windows, for one image.

    Gives where it ends, the coefficients there (1, rows, *shape), an offset of the lower bounds of the rows and of their
    negatives (2·rows,), and whether those negatives are still to come: after the first curve they follow the rows.
    """
    steps, at, both = found.network.steps, number, True
    patches = Patches.units(chosen, found.network.shape_of(number), found.low[0]) if _windowed(steps[at - 1]) else None
    offset = less = found.low[0].new_zeros(len(chosen))
    if patches is None:
        return number, _units(found, number, chosen), offset.repeat(2), True
    while at and patches.small and (_windowed(steps[at - 1]) or _apart(steps[at - 1])):
        operation, source = steps[at - 1].operation, steps[at - 1].inputs[0]
        if both and isinstance(operation, Elementwise):
            patches, offset, less, both = patches.signed(), torch.cat([offset, -offset]), less.repeat(2), False
        less = less + patches.sum_with(found.rounding[at][row], absolute=True)
        if isinstance(operation, Elementwise):
            patches, constant = _patches_through_curve(patches, lines_of(found, at), row)
            offset = offset + constant
        elif isinstance(operation, Affine) and operation.kernel is not None:
            if operation.kernel.bias is not None:
                offset = offset + patches.total(operation.kernel.bias)
            patches = patches.back(operation.kernel, found.network.shape_of(source))
        elif isinstance(operation, Affine):
            constant = operation.constant(found.low[source])
            slope = operation.function(torch.ones_like(constant)) - constant
            offset = offset + patches.sum_with(constant[0])
            patches = patches.scaled(patches.values * patches.at(slope[0]))
        at = source
    offset = torch.cat([offset, -offset]) - less.repeat(2) if both else offset - less
    return at, patches.dense()[None], offset, both


def _patches_through_curve(patches: Patches, lines: Lines, row: int) -> tuple[Patches, Tensor]:
    up, down = patches.scaled(patches.values.clamp(min=0)), patches.scaled(patches.values.clamp(max=0))
    (under, low), (over, high) = ((slope[row], shift[row]) for slope, shift in (lines.under, lines.over))
    constant = up.sum_with(low) + down.sum_with(high)
    return patches.scaled(up.values * up.at(under) + down.values * down.at(over)), constant


def _windowed(step: Step) -> bool:
    """Whether a step keeps coefficients within windows: a convolution."""
    return isinstance(step.operation, Affine) and step.operation.kernel is not None


def _apart(step: Step) -> bool:
    """Whether it leaves them where they are."""
    return isinstance(step.operation, Elementwise) or (isinstance(step.operation, Affine) and step.operation.apart)


def _store(found: Bounds, number: int, row: int, low: Tensor, high: Tensor) -> None:
    middle = (low + high) / 2  # rounding may let them cross
    shape = found.network.shape_of(number)
    found.low[number][row] = torch.minimum(low, middle).view(shape)
    found.high[number][row] = torch.maximum(high, middle).view(shape)


def _narrow_linear(found: Bounds, number: int, chosen: Tensor) -> None:
    """The same where no curve is below: the coefficients are those of every image."""
    for some in _chunks(found, chosen):
        low, high = found.low[number].flatten(1), found.high[number].flatten(1)
        rows, offset, less = coefficients(found, number, _units(found, number, some), slice(None))
        less = less + found.ours * found.size[number].flatten(1)[:, some]
        least = found.reach.least(rows) + offset - less
        most = -(found.reach.least(-rows) - offset - less)
        low[:, some] = torch.maximum(low[:, some], least)
        high[:, some] = torch.minimum(high[:, some], most)
        found.low[number], found.high[number] = low.view_as(found.low[number]), high.view_as(found.high[number])


def back(
    found: Bounds, number: int, rows: Tensor, images: slice, both: bool = False, slopes: Slopes | None = None
) -> Tensor:
    """Lower bounds of linear functions of an outcome: rows (n or 1, rows, *shape) to (n, rows).

    images:  which images;  both: of the functions and, in further rows, of their negatives.
    slopes:  to use instead of the usual ones under the curves.
    """
    pulled, offset, less = coefficients(found, number, rows, images, both, slopes)
    return found.reach.least(pulled, images) + offset - less


def least_logits(found: Bounds, rows: Tensor, images: slice, slopes: Slopes | None = None) -> Tensor:
    """Lower bounds of linear functions of the logits (n, rows, classes): (n, rows)."""
    return back(found, len(found.network.steps), rows, images, slopes=slopes) - in_float64(found, rows, images)


def coefficients(
    found: Bounds, number: int, rows: Tensor, images: slice, both: bool = False, slopes: Slopes | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear functions of the image that lie under linear functions of an outcome (n or 1, rows, *shape).

    Coefficients (n or 1, rows, D), offsets, and what rounding may take away, (n or 1, rows) each.
    """
    steps = found.network.steps
    waiting = {number: rows}
    offset = less = rows.new_zeros(rows.shape[:2])
    for at in range(number, 0, -1):
        if at not in waiting:
            continue
        if both and not isinstance(steps[at - 1].operation, Affine):
            waiting = {key: torch.cat([value, -value], 1) for key, value in waiting.items()}
            offset, less, both = torch.cat([offset, -offset], 1), torch.cat([less, less], 1), False
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
    if both:
        return torch.cat([image, -image], 1), torch.cat([offset, -offset], 1), torch.cat([less, less], 1)
    return image, offset, less


Through = tuple[tuple[Tensor, ...], Tensor, Tensor]


def _through_curve(found: Bounds, at: int, gradient: Tensor, images: slice, slopes: Slopes | None) -> Through:
    """As `through_affine`, for a curve: its lines take its place."""
    if slopes is not None and at in slopes:
        under, over = own_lines(found, at, slopes[at], images)
    else:
        lines = lines_of(found, at)
        under, over = ((slope[images, None], shift[images, None]) for slope, shift in (lines.under, lines.over))
    up, down = gradient.clamp(min=0), gradient.clamp(max=0)
    constant = (up * under[1] + down * over[1]).flatten(2).sum(2)
    return (up * under[0] + down * over[0],), constant, lost(found, at, gradient, images)


def lines_of(found: Bounds, at: int) -> Lines:
    """The lines under and over a curve, from the interval that goes into it; made once."""
    if at not in found.lines:
        step = found.network.steps[at - 1]
        assert isinstance(step.operation, Elementwise)
        low, high = found.low[step.inputs[0]], found.high[step.inputs[0]]
        curve = step.operation.curve
        under, over = curve.slopes(low, high)
        least, most = curve.extremes(low, high, under)[0], curve.extremes(low, high, over)[1]
        found.lines[at] = Lines(
            (under, curve.function(least) - under * least), (over, curve.function(most) - over * most)
        )
    return found.lines[at]


def own_lines(
    found: Bounds, at: int, slopes: tuple[Tensor, Tensor], images: slice
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The lines of these slopes (n, rows, *shape) under and over a curve, through which gradients flow: slopes, offsets."""
    step = found.network.steps[at - 1]
    assert isinstance(step.operation, Elementwise)
    curve = step.operation.curve
    low, high = (side[step.inputs[0]][images, None] for side in (found.low, found.high))
    lines = []
    for over, slope in enumerate(slopes):
        touches = curve.extremes(low.expand_as(slope), high.expand_as(slope), slope)[over]
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
