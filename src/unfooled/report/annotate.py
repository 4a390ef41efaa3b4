"""What is written round a plot: names at the ends of curves, marks with their values, and the key. Units are points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unfooled.report import letters, style
from unfooled.report.letters import Box
from unfooled.report.style import Colour, Look
from unfooled.results import Curve, Mark, Panel, percent

SIZE = 9.0
SAMPLE, GUTTER, LINE_GAP = 30.0, 18.0, 4.0
BACKING = {"facecolor": style.PAPER.light, "alpha": 0.7, "linewidth": 0, "pad": 0.5}  # behind words on lines


@dataclass(frozen=True)
class Entry:
    """One line of the key: a sample and its name, wrapped."""

    lines: list[str]
    look: Look
    is_mark: bool = False

    @property
    def wide(self) -> float:
        """From the sample's left to the name's right."""
        return SAMPLE + 6 + max(letters.width(line, SIZE) for line in self.lines)


def text(figure: Figure, x: float, y: float, words: str, size: float, colour: Colour, **more: Any) -> None:
    """Text with the left end of its base line at a place in points."""
    wide, high = figure.get_size_inches() * 72
    figure.text(x / wide, y / high, words, fontsize=size, color=colour.light, parse_math=False, **more)


def line(xs: Sequence[float], ys: Sequence[float], look: Look) -> Line2D:
    """A line of this look."""
    return Line2D(
        xs,
        ys,
        color=look.colour.light,
        linewidth=look.width,
        linestyle=(0, look.dashes) if look.dashes else "-",
        marker=look.marker,
        markersize=3.6,
        markeredgewidth=0,
        solid_capstyle="round",
        zorder=look.order,
    )


# --- names at the ends of curves -----------------------------------------------------------------


def beside(curves: Sequence[Curve], high: float) -> list[list[str]]:
    """The lines of each curve's name where all fit to the right of a plot of this height, else none."""
    if len({curve.x[-1] for curve in curves}) != 1 or len({x for curve in curves for x in curve.x}) == 1:
        return []
    found = [letters.wrap(curve.label, 116, SIZE) for curve in curves]
    if max(len(lines) for lines in found) > 3 or sum(_slot(lines) for lines in found) > high:
        return []
    return found


def names(axes: Axes, curves: Sequence[Curve], looks: Sequence[Look], lines: Sequence[Sequence[str]]) -> None:
    """Write each curve's name at its end; one that had to move gets a thin line to the end."""
    if not lines:
        return
    order = sorted(range(len(curves)), key=lambda n: (curves[n].y[-1].value, -n))
    ends = [_point(axes, curves[n].x[-1], curves[n].y[-1].value) for n in order]
    frame = axes.get_window_extent()
    heights = [_slot(lines[n]) for n in order]
    centres = letters.spread([y for _, y in ends], heights, frame.y0 - 6, frame.y1 + 10)
    at = float(frame.x1) + 10
    for n, (x, y), centre in zip(order, ends, centres, strict=True):
        if abs(centre - y) > 2.5:
            _wire(_figure(axes), (x + 4, at - 2.5), (y, centre), looks[n].colour)
        _stack(_figure(axes), at, centre, lines[n], looks[n].colour)


def _slot(lines: Sequence[str]) -> float:
    return letters.height(len(lines), SIZE) + 3


def _stack(figure: Figure, x: float, middle: float, lines: Sequence[str], colour: Colour) -> None:
    step = SIZE * letters.LEADING
    top = middle + step * (len(lines) - 1) / 2
    for n, words in enumerate(lines):
        text(figure, x, top - n * step - SIZE * 0.36, words, SIZE, colour)


def _wire(figure: Figure, xs: tuple[float, float], ys: tuple[float, float], colour: Colour) -> None:
    wide, high = figure.get_size_inches() * 72
    ends = ([x / wide for x in xs], [y / high for y in ys])
    figure.add_artist(Line2D(*ends, transform=figure.transFigure, color=colour.light, linewidth=0.6, alpha=0.75))


# --- marks ---------------------------------------------------------------------------------------


def marks(axes: Axes, panel: Panel, few: bool) -> None:
    """Ring each mark and write its value beside it, with its name where there are few."""
    frame = Box(*(float(v) for v in axes.get_window_extent().extents))
    frame = Box(frame.left, frame.bottom + 2, frame.right, frame.top + 8)
    points = [point for curve in panel.curves for point in _along(axes, curve)]
    rings = [_point(axes, mark.x, mark.y.value) for mark in panel.marks]
    written: list[Box] = []
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in rings]
    for mark, (x, y) in sorted(zip(panel.marks, rings, strict=True), key=lambda pair: pair[1][1]):
        look = style.mark_look(mark, panel.curves)
        axes.add_line(_ring([mark.x], [100 * mark.y.value], look))
        lines = [*(letters.wrap(mark.label, 110, SIZE) if few else []), percent(mark.y)]
        wide = max(letters.width(words, SIZE, bold=True) for words in lines)
        high = letters.height(len(lines), SIZE)
        others = [box for box in taken if not box.holds(x, y)]
        rivals = [ring for ring in rings if ring != (x, y)]
        box = letters.place((x, y), wide, high, frame, [*others, *written], points, rivals, written)
        written.append(box)
        for n, words in enumerate(lines):
            weight = "bold" if n == len(lines) - 1 else "normal"
            base = box.top - (n + 0.85) * SIZE * letters.LEADING
            middle = box.left + (wide - letters.width(words, SIZE, weight == "bold")) / 2
            text(_figure(axes), middle, base, words, SIZE, look.colour, weight=weight, bbox=BACKING)


def _ring(xs: Sequence[float], ys: Sequence[float], look: Look) -> Line2D:
    ring = Line2D(xs, ys, linestyle="", marker="o", markersize=8, markeredgewidth=1.7, zorder=9)
    ring.set(markerfacecolor=style.PAPER.light, markeredgecolor=look.colour.light, clip_on=False)
    return ring


def _along(axes: Axes, curve: Curve) -> Iterator[tuple[float, float]]:
    """Points along a curve, close enough that no word slips between them."""
    corners = [_point(axes, x, y.value) for x, y in zip(curve.x, curve.y, strict=True)]
    for (x0, y0), (x1, y1) in pairwise(corners):
        for t in np.linspace(0, 1, 24):
            yield float(x0 + t * (x1 - x0)), float(y0 + t * (y1 - y0))


def _point(axes: Axes, x: float, value: float) -> tuple[float, float]:
    """A place on the plot in points of the figure (the figure is laid out at 72 to the inch)."""
    a, b = axes.transData.transform((x, 100 * value))
    return float(a), float(b)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


# --- the key -------------------------------------------------------------------------------------


def curve_entries(curves: Sequence[Curve], looks: Sequence[Look], room: float) -> list[Entry]:
    """The key's lines for curves."""
    return [
        Entry(letters.wrap(curve.label, room - SAMPLE - 12, SIZE), look)
        for curve, look in zip(curves, looks, strict=True)
    ]


def mark_entries(panel: Panel, room: float) -> list[Entry]:
    """The key's lines for marks."""
    return [_mark_entry(mark, panel, room) for mark in panel.marks]


def _mark_entry(mark: Mark, panel: Panel, room: float) -> Entry:
    value = percent(mark.y).replace(" ", "\N{NO-BREAK SPACE}")
    words = f"{mark.label}: {value}"
    return Entry(letters.wrap(words, room - SAMPLE - 12, SIZE), style.mark_look(mark, panel.curves), True)


def in_columns(entries: Sequence[Entry], room: float) -> list[list[Entry]]:
    """The entries as rows of as many columns as fit, reading down the columns."""
    if not entries:
        return []
    column = max(entry.wide for entry in entries) + GUTTER
    columns = max(1, min(int((room + GUTTER) // column), 3))
    rows = -(-len(entries) // columns)
    return [list(entries[n::rows]) for n in range(rows)]


def key_height(rows: Sequence[Sequence[Entry]]) -> float:
    """How high the key is, with the space above it."""
    return sum(_row_height(row) for row in rows) + (4 if rows else 0)


def _row_height(row: Sequence[Entry]) -> float:
    return letters.height(max(len(entry.lines) for entry in row), SIZE) + LINE_GAP


def key(figure: Figure, rows: Sequence[Sequence[Entry]], top: float) -> None:
    """Draw the key downwards from `top`."""
    wide, high = figure.get_size_inches() * 72
    column = max((entry.wide for row in rows for entry in row), default=0.0) + GUTTER
    for row in rows:
        for n, entry in enumerate(row):
            x, y = n * column, top - SIZE * letters.LEADING / 2
            sample = [x / wide, (x + SAMPLE / 2) / wide, (x + SAMPLE) / wide], [y / high] * 3
            drawn = _ring([sample[0][1]], [y / high], entry.look) if entry.is_mark else line(*sample, entry.look)
            drawn.set(transform=figure.transFigure, markevery=[0] if entry.is_mark else [1])
            figure.add_artist(drawn)
            middle = y - (len(entry.lines) - 1) * SIZE * letters.LEADING / 2
            _stack(figure, x + SAMPLE + 6, middle, entry.lines, entry.look.colour)
        top -= _row_height(row)
