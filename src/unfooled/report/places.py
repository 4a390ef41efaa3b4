"""Panels whose axis has named places instead of numbers: a point for each curve at each place, and the way between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from unfooled.report import letters, style
from unfooled.report.annotate import SIZE
from unfooled.report.style import Look
from unfooled.results import Curve

SLANT, UPRIGHT = 35.0, 90.0  # degrees that names are turned by, on wide and on narrow plots
MARKERS = {"clean": "_", "non-adaptive": "o", "adaptive": "s"}


def high(ticks: Sequence[str], narrow: bool) -> float:
    """How high the names are, turned as they are, in points."""
    angle = np.radians(UPRIGHT if narrow else SLANT)
    longest = max(letters.width(name, SIZE) for name in ticks)
    return float(longest * np.sin(angle) + SIZE * np.cos(angle)) - 6


def draw(axes: Axes, ticks: Sequence[str], curves: Sequence[Curve], looks: Sequence[Look], narrow: bool) -> None:
    """Draw the points with their intervals over the names; what the attackers leave is joined at each place."""
    both = [curve for curve in curves if curve.role in ("non-adaptive", "adaptive")]
    for at in range(len(ticks)):
        found = [100 * y.value for curve in both for x, y in zip(curve.x, curve.y, strict=True) if x == at]
        if len(found) > 1:
            axes.vlines([at], min(found), max(found), color=style.LOST.light, linewidth=3 if narrow else 5, zorder=1)
    for curve, look in zip(curves, looks, strict=True):
        colour, values = look.colour.light, [100 * y.value for y in curve.y]
        low, top = [100 * y.low for y in curve.y], [100 * y.high for y in curve.y]
        marker = MARKERS.get(curve.role, look.marker)
        if curve.role != "clean":
            axes.vlines(curve.x, low, top, color=colour, linewidth=1, zorder=look.order)
        size = (6 if narrow else 11) if marker == "_" else (3.5 if narrow else 5)
        axes.plot(
            curve.x, values, linestyle="", marker=marker, markersize=size, color=colour, zorder=look.order,
            markeredgewidth=1.4 if marker == "_" else 0, clip_on=False,
        )  # fmt: skip
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_xticks(range(len(ticks)), ticks)
    for name in axes.get_xticklabels():
        name.set(rotation=UPRIGHT if narrow else SLANT, ha="center" if narrow else "right")
        name.set_rotation_mode("default" if narrow else "anchor")
