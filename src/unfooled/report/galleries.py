"""Galleries as figures: what was done to each image, or the smallest changes that fool, side by side. Units are points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unfooled.report import letters, style
from unfooled.report.images import Shot, small
from unfooled.report.style import Colour
from unfooled.report.words import size
from unfooled.results import Gallery, Picture

SIDE, SIGN, CARD, MARGIN, HEAD = 104.0, 22.0, 84.0, 14.0, 34.0
SIZE = 7.5
STEP = SIZE * letters.LEADING


class Line(NamedTuple):
    """One line under an image."""

    words: str
    colour: Colour
    bold: bool


def triptych(gallery: Gallery, shots: Sequence[Shot]) -> Figure:
    """Rows of image + scaled perturbation = adversarial image, with predictions under them.

    Args:
        gallery: the pictures.
        shots: the images of each picture, in the same order.
    """
    texts = [_under_row(picture, shot) for picture, shot in zip(gallery.pictures, shots, strict=True)]
    columns = max(1, min(4, -(-len(shots) // 12)))
    high = _tallest(shots, SIDE) + max((_deep(*text) for text in texts), default=0)
    wide = 3 * SIDE + 2 * SIGN + 2 * MARGIN
    figure, axes, top = _sheet(gallery, -(-len(shots) // columns), columns * wide, high)
    for n, (shot, text) in enumerate(zip(shots, texts, strict=True)):
        left, upper = MARGIN + (n % columns) * wide, top - (n // columns) * (high + MARGIN)
        for m, image in enumerate((shot.clean, shot.change, shot.adversarial)):
            x = left + m * (SIDE + SIGN)
            base = _image(axes, image, x, upper, SIDE)
            _write(axes, x, base, text[m])
        for m, sign in enumerate("+="):
            x = left + (m + 1) * (SIDE + SIGN) - SIGN / 2
            axes.text(x, (upper + base) / 2, sign, fontsize=15, color=style.INK.light, ha="center", va="center")
    return figure


def grid(gallery: Gallery, shots: Sequence[Shot]) -> Figure:
    """Cards with the adversarial image, the old and the new prediction, and the size of the change.

    Args:
        gallery: the pictures.
        shots: the images of each picture, in the same order.
    """
    texts = [_under_card(picture) for picture in gallery.pictures]
    columns = min(8, max(len(shots), 4))
    high = _tallest(shots, CARD) + max((_deep(text) for text in texts), default=0)
    wide = CARD + MARGIN
    figure, axes, top = _sheet(gallery, -(-len(shots) // columns), columns * wide + MARGIN, high)
    for n, (shot, text) in enumerate(zip(shots, texts, strict=True)):
        left, upper = MARGIN + (n % columns) * wide, top - (n // columns) * (high + MARGIN)
        _write(axes, left, _image(axes, shot.adversarial, left, upper, CARD), text)
    return figure


def prediction(name: str, confidence: float) -> str:
    """What a model said and how surely: sneaker, 87.2 %."""
    return f"{name}, {100 * confidence:.1f} %"


# --- what stands under an image ------------------------------------------------------------------


def _under_row(picture: Picture, shot: Shot) -> tuple[list[Line], list[Line], list[Line]]:
    room = SIDE + SIGN - 8
    before = prediction(picture.clean_prediction, picture.clean_confidence)
    after = prediction(picture.adversarial_prediction, picture.adversarial_confidence)
    how = f"{picture.attack}, {picture.threat}, size {size(picture.size)}, {picture.model}"
    return (
        _fit(before, room, style.INK, bold=True) + _fit(f"true label: {picture.label}", room, style.SOFT),
        _fit(shot.title, room, style.INK, bold=True)
        + _fit(f"{shot.scale_words}; mid-grey = no change" if shot.largest else "no change", room, style.SOFT),
        _fit(after, room, style.ADAPTIVE[0], bold=True) + _fit(how, room, style.SOFT, most=3),
    )


def _under_card(picture: Picture) -> list[Line]:
    return (
        _fit(f"{picture.clean_prediction} →", CARD, style.INK)
        + _fit(picture.adversarial_prediction, CARD, style.ADAPTIVE[0], bold=True)
        + _fit(f"size {size(picture.size)}", CARD, style.SOFT)
    )


def _fit(words: str, room: float, colour: Colour, bold: bool = False, most: int = 2) -> list[Line]:
    """The words wrapped; what does not fit in `most` lines ends in an ellipsis."""
    lines = letters.wrap(words, room, SIZE, bold)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][:-1] + "…"]
    return [Line(line, colour, bold) for line in lines]


def _deep(*texts: list[Line]) -> float:
    """How far the longest of the texts reaches beneath its image."""
    return max(len(text) for text in texts) * STEP + 4


def _write(axes: Axes, x: float, top: float, lines: Sequence[Line]) -> None:
    for n, line in enumerate(lines, 1):
        weight = "bold" if line.bold else "normal"
        y = top - 2 - n * STEP
        axes.text(x, y, line.words, fontsize=SIZE, color=line.colour.light, weight=weight, parse_math=False)


# --- the sheet -----------------------------------------------------------------------------------


def _sheet(gallery: Gallery, rows: int, across: float, high: float) -> tuple[Figure, Axes, float]:
    """A white sheet with its heading, measured from the lower left; and where the pictures begin."""
    title = letters.wrap(gallery.title, across - 2 * MARGIN, 12, bold=True)
    head = HEAD + letters.height(len(title) - 1, 12)
    up = head + rows * (high + MARGIN) + 4
    figure = Figure(figsize=(across / 72, up / 72), dpi=72, facecolor=style.PAPER.light)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, across), ylim=(0, up))
    for n, line in enumerate(title):
        y = up - 20 - letters.height(n, 12)
        axes.text(MARGIN, y, line, fontsize=12, weight="bold", color=style.INK.light, parse_math=False)
    return figure, axes, up - head


def _tallest(shots: Sequence[Shot], side: float) -> float:
    """The height of the tallest image when all are `side` wide."""
    return max((side * shot.clean.shape[0] / shot.clean.shape[1] for shot in shots), default=0.0)


def _image(axes: Axes, image: np.ndarray, left: float, top: float, side: float) -> float:
    """Draw an image and return where it ends."""
    base = top - side * float(image.shape[0]) / float(image.shape[1])
    way = "none" if small(image) else "antialiased"
    axes.imshow(image, extent=(left, left + side, base, top), interpolation=way, aspect="auto", zorder=2)
    return base
