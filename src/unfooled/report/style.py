"""Colours, dashes and markers. One accent says 'attacked by someone who knows the defense', one muted blue says not.

The hues are Okabe and Ito's (2008), darkened until their text reaches 4.5:1 on white. Every colour has a twin for dark
screens; in the page, plots name colours by CSS variable, so that one drawing serves both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unfooled.results import Curve, Mark


class Colour(NamedTuple):
    """A colour by its CSS name, on white and on a dark screen."""

    name: str
    light: str
    dark: str


PAPER = Colour("paper", "#ffffff", "#16191d")
INK = Colour("ink", "#1c2025", "#e9e7e3")
SOFT = Colour("soft", "#5a626b", "#a8aeb6")
GREY = Colour("grey", "#6c747d", "#8f969e")
RULE = Colour("rule", "#dcdfe3", "#363c44")
WASH = Colour("wash", "#f6f5f2", "#1f2329")
TINT = Colour("tint", "#fdf1e8", "#33251a")
LOST = Colour("lost", "#f6c9a8", "#6b3c1b")
ALARM = Colour("alarm", "#b3211c", "#ff8f85")

ADAPTIVE = (
    Colour("adaptive", "#c24a00", "#ff9b57"),
    Colour("adaptive-2", "#8a3300", "#ffc59e"),
    Colour("adaptive-3", "#4f1d00", "#e0752b"),
)
NON_ADAPTIVE = (
    Colour("illusion", "#4a7aa3", "#84b0d6"),
    Colour("illusion-2", "#2c5680", "#b9d5ee"),
    Colour("illusion-3", "#163554", "#5d8fba"),
)
MODELS = (
    Colour("model", "#0071b0", "#5cb8f0"),
    Colour("model-2", "#007a59", "#43c79f"),
    Colour("model-3", "#a1478a", "#e39ac9"),
    Colour("model-4", "#856500", "#d9b84a"),
    Colour("model-5", "#444a52", "#c3c8ce"),
)
COLOURS = (PAPER, INK, SOFT, GREY, RULE, WASH, TINT, LOST, ALARM, *ADAPTIVE, *NON_ADAPTIVE, *MODELS)

EDGES = {"proved": MODELS[0], "attacked": ADAPTIVE[0]}  # of areas: what is below the first, what is above the second

MARKERS = ("o", "s", "^", "D", "v")
SOLID: tuple[tuple[float, ...], ...] = ((), (1.2, 1.5), (7, 2, 1.5, 2))
DASHED: tuple[tuple[float, ...], ...] = ((4.2, 2.4), (2.2, 2.2), (6, 2, 2, 2))


@dataclass(frozen=True)
class Look:
    """How one curve is drawn. `dashes` is empty for a solid line; `order` is what lies on top."""

    colour: Colour
    dashes: tuple[float, ...]
    marker: str
    width: float
    order: int


def looks(curves: Sequence[Curve]) -> list[Look]:
    """The look of each curve: its role gives hue and dash, its family gives shade and marker."""
    found = []
    seen: dict[tuple[str, str], int] = {}
    for curve in curves:
        place = _families(curves, curve.role).index(_family(curve))
        key = (curve.role, _family(curve))
        turn = seen[key] = seen.get(key, -1) + 1
        found.append(_look(curve.role, place, turn))
    return found


def mark_look(mark: Mark, curves: Sequence[Curve]) -> Look:
    """The look of the curve that a mark belongs to: of its role and family, else of its role."""
    styled = list(zip(curves, looks(curves), strict=True))
    for curve, look in styled:
        if (curve.role, curve.family) == (mark.role, mark.family):
            return look
    for curve, look in styled:
        if mark.family and curve.family == mark.family:
            return look
    return _look(mark.role, 0, 0)


def _family(curve: Curve) -> str:
    return curve.family or (curve.label if curve.role == "model" else "")


def _families(curves: Iterable[Curve], role: str) -> list[str]:
    """The families of a role in order. The two attackers share theirs, so that a shade means the same for both."""
    attackers = ("adaptive", "non-adaptive")
    roles = attackers if role in attackers else (role,)
    return list(dict.fromkeys(_family(curve) for curve in curves if curve.role in roles))


def _look(role: str, place: int, turn: int) -> Look:
    marker = MARKERS[place % len(MARKERS)]
    if role == "adaptive":
        return Look(ADAPTIVE[place % 3], SOLID[turn % 3], marker, 2.2, 5)
    if role == "non-adaptive":
        return Look(NON_ADAPTIVE[place % 3], DASHED[turn % 3], marker, 1.7, 4)
    if role == "clean":
        return Look(GREY, (), "", 1.0, 3)
    if role in EDGES:
        return Look(EDGES[role], (), "", 1.9, 5)
    return Look(MODELS[place % len(MODELS)], SOLID[turn % 3], marker, 1.9, 4)


def css_variables(dark: bool = False) -> str:
    """The colours as CSS declarations."""
    return " ".join(f"--{c.name}: {c.dark if dark else c.light};" for c in COLOURS)


def by_variable(svg: str) -> str:
    """The drawing with its colours named by CSS variable."""
    names = {colour.light: colour.name for colour in COLOURS}
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{names[m[0]]})" if m[0] in names else m[0], svg)
