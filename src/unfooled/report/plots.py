"""Panels: accuracy against the attack's size or the defense's strength, with intervals and named curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfooled.errors import DataError
from unfooled.report import annotate, letters, places, style
from unfooled.report.annotate import SIZE
from unfooled.report.style import Look
from unfooled.results import Curve, Panel

WIDE, NARROW = (518.0, 270.0), (262.0, 210.0)  # points; the height is that of the axes
LEFT, FOOT, HEAD, EDGE = 26.0, 28.0, 24.0, 8.0
FEW_MARKS = 3  # more of them are named in the key, not beside their points


def panel(panel: Panel, narrow: bool = False, title: bool = True) -> Figure:
    """Draw a panel.

    Args:
        panel: the curves, and the marks on them.
        narrow: for a telephone: a smaller plot with its key beneath.
        title: whether the title stands over the plot.
    """
    curves = [_checked(panel, curve) for curve in panel.curves if curve.x]
    all_looks = dict(zip((id(c) for c in panel.curves), style.looks(panel.curves), strict=True))
    looks = [all_looks[id(curve)] for curve in curves]
    wide, high = NARROW if narrow else WIDE
    names = [] if narrow or panel.ticks else annotate.beside(curves, high)
    few = len(panel.marks) <= (1 if narrow else FEW_MARKS)
    entries = [] if names else annotate.curve_entries(curves, looks, wide)
    entries += [] if few else annotate.mark_entries(panel, wide)
    key = annotate.in_columns(entries, wide)
    heading = letters.wrap(panel.title, wide - EDGE, 12, bold=True) if title else []
    over = HEAD + (letters.height(len(heading), 12) + 6 if heading else 0)
    right = max((letters.width(line, SIZE) for lines in names for line in lines), default=0)
    right += 16 if names else EDGE
    below = letters.wrap(panel.x_label, wide - LEFT - right, SIZE)
    foot = FOOT + letters.height(len(below), SIZE) + (places.high(panel.ticks, narrow) if panel.ticks else 0)
    under = foot + annotate.key_height(key)
    total = over + high + under

    figure = Figure(figsize=(wide / 72, total / 72), dpi=72, facecolor=style.PAPER.light if title else "none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((LEFT / wide, under / total, (wide - LEFT - right) / wide, high / total))
    _frame(axes, panel, curves, narrow)
    axes.set_xlabel("\n".join(below), fontsize=SIZE, color=style.SOFT.light, labelpad=5, parse_math=False)
    if panel.ticks:
        places.draw(axes, panel.ticks, curves, looks, narrow)
    _areas(axes, curves)
    for curve, look in zip(curves, looks, strict=True) if not panel.ticks else ():
        _curve(axes, curve, look)
    annotate.names(axes, curves, looks, names)
    annotate.marks(axes, panel, few)
    for n, line in enumerate(heading):
        annotate.text(figure, 0, total - 11 - letters.height(n, 12), line, 12, style.INK, weight="bold")
    annotate.text(figure, 0, under + high + 11, "accuracy, %", SIZE, style.SOFT)
    annotate.key(figure, key, under - foot)
    return figure


def _checked(panel: Panel, curve: Curve) -> Curve:
    if len(curve.x) != len(curve.y):
        raise DataError(
            f"Curve {curve.label!r} of panel {panel.id!r} has {len(curve.x)} places on the axis but "
            f"{len(curve.y)} estimates; as many are needed."
        )
    return curve


def _frame(axes: Axes, panel: Panel, curves: Sequence[Curve], narrow: bool) -> None:
    """Axes without a box: light lines at the percents, the axis of x beneath."""
    xs = [x for curve in curves for x in curve.x] + [mark.x for mark in panel.marks] or [0.0, 1.0]
    pad = 0.02 * (max(xs) - min(xs)) or 0.5 * abs(xs[0]) or 0.5
    axes.set_xlim(min(xs) - pad, max(xs) + pad)
    axes.set_ylim(-1.5, 101.5)
    axes.patch.set_alpha(0)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=style.GREY.light, linewidth=0.8)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=style.RULE.light, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=SIZE, labelcolor=style.SOFT.light, color=style.GREY.light, length=3, width=0.8)
    axes.tick_params(axis="y", length=0)


def _areas(axes: Axes, curves: Sequence[Curve]) -> None:
    """Fill what lies under a curve of the role "proved", what lies over one of "attacked", and hatch what is between."""
    edges = {curve.role: curve for curve in curves if curve.role in style.EDGES}
    if len(edges) < len(style.EDGES):
        return
    proved, attacked = ([100 * y.value for y in edges[role].y] for role in ("proved", "attacked"))
    x = edges["proved"].x
    axes.fill_between(x, 0, proved, color=style.EDGES["proved"].light, alpha=0.3, linewidth=0, zorder=1)
    axes.fill_between(
        x, proved, attacked, facecolor="none", edgecolor=style.RULE.light, hatch="////", linewidth=0, zorder=1
    )
    axes.fill_between(x, attacked, 100, color=style.LOST.light, alpha=0.6, linewidth=0, zorder=1)


def _curve(axes: Axes, curve: Curve, look: Look) -> None:
    colour = look.colour.light
    ys = [100 * y.value for y in curve.y]
    if look.marker or len(curve.x) == 1:
        low, high = [100 * y.low for y in curve.y], [100 * y.high for y in curve.y]
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=look.order - 2)
    line = annotate.line(curve.x, ys, look)
    line.set_markersize(3.6 if len(curve.x) <= 14 else 0)
    if len(curve.x) == 1:
        line.set(marker=look.marker or "_", markersize=6)
        axes.vlines(curve.x, low, high, color=colour, linewidth=1, zorder=look.order)
    axes.add_line(line)
