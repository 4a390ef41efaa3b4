"""Text that is measured before it is drawn: wrapping, and labels that do not lie on each other. Units are points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import dist
from typing import NamedTuple

from matplotlib.font_manager import FontProperties, get_font
from matplotlib.font_manager import findfont as find_font

LEADING = 1.25
Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def crosses(self, other: Box) -> bool:
        """Whether one stands over the other."""
        return self.left < other.right and other.left < self.right

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return self.left <= x <= self.right and self.bottom <= y <= self.top


@lru_cache(maxsize=4096)
def width(text: str, size: float, bold: bool = False) -> float:
    """How long a line is in DejaVu Sans, which is wider than the sans serif of most readers."""
    font = get_font(find_font(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    font.set_size(size, 72)
    font.set_text(text, 0.0)
    return float(font.get_width_height()[0]) / 64


def wrap(text: str, room: float, size: float, bold: bool = False) -> list[str]:
    """The text in lines no longer than `room`; words that are longer are cut."""
    lines = [""]
    for word in re.split(r"[ \t\r\n]+", text):
        joined = f"{lines[-1]} {word}".strip()
        if width(joined, size, bold) <= room:
            lines[-1] = joined
            continue
        while width(word, size, bold) > room and len(word) > 1:
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or width(word[:n], size, bold) <= room)
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return [line for line in lines if line] or [""]


def height(lines: int, size: float) -> float:
    """How high that many lines are."""
    return lines * size * LEADING


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Centres as near as can be to those wanted, in the same order from low to high, without overlap.

    Least squares by pooling adjacent violators; `wanted` must be ascending.
    """
    shifts, total = [], 0.0
    for each in heights:
        shifts.append(total + each / 2)
        total += each
    blocks: list[tuple[float, int]] = []
    for want, shift in zip(wanted, shifts, strict=True):
        mean, count = want - shift, 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    ends = [min(max(mean, low), high - total) for mean, count in blocks for _ in range(count)]
    return [end + shift for end, shift in zip(ends, shifts, strict=True)]


def place(
    at: Point,
    wide: float,
    high: float,
    frame: Box,
    taken: Sequence[Box],
    lines: Sequence[Point],
    rivals: Sequence[Point],
    lower: Sequence[Box],
) -> Box:
    """Where a text of this size goes beside a point.

    In the frame, off what is taken, off the lines where it can be, nearer to its point than to rivals, and not
    beneath the words of `lower` points.
    """
    x, y = at
    gap = 6.5
    left, bottom = x - wide / 2, y - high / 2
    right, over, back, under = x + gap, y + gap, x - gap - wide, y - gap - high
    corners = [(left, over), (right, over - 3), (back, over - 3), (left, under), (right, under + 3)]
    corners += [(back, under + 3), (right, bottom), (back, bottom)]
    corners += [(left, over + 14), (left, under - 14), (left, over + 28), (left, under - 28)]
    corners += [(right + 12, over + 8), (back - 12, over + 8)]

    def cost(item: tuple[int, tuple[float, float]]) -> float:
        rank, (a, b) = item
        box = Box(a, b, a + wide, b + high)
        centre = (a + wide / 2, b + high / 2)
        mistaken = any(dist(centre, rival) < dist(centre, at) + 3 for rival in rivals if dist(rival, at) > gap)
        return (
            (rank if rank < 8 else 3 * rank)
            + 4 * min(8, sum(box.holds(*point) for point in lines))
            + 20 * sum(box.overlap(other) for other in taken)
            + 20 * (wide * high - box.overlap(frame))
            + 90 * (mistaken or any(box.crosses(other) and b < other.top for other in lower))
        )

    _, (a, b) = min(enumerate(corners), key=cost)
    return Box(a, b, a + wide, b + high)
