"""Galleries as figures: what was done to each image, or the smallest changes that fool, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unfooled.report import letters, style
from unfooled.report.images import Shot, small
from unfooled.report.style import Colour
from unfooled.results import Gallery, Picture

SIDE, SIGN, MARGIN, HEAD = 104.0, 22.0, 14.0, 34.0  # points
SIZE = 7.5
CARD = 84.0


def triptych(gallery: Gallery, shots: Sequence[Shot]) -> Figure:
    """Rows of image + scaled perturbation = adversarial image, with predictions under them.

    Args:
        gallery: the pictures.
        shots: the images of each picture, in the same order.
    """
    columns = min(4, -(-len(shots) // 12)) or 1
    wide = 3 * SIDE + 2 * SIGN
    high = _side_high(shots, SIDE) + 4 * SIZE * letters.LEADING + 12
    across = columns * (wide + 2 * MARGIN)
    figure, axes, top = _sheet(gallery, -(-len(shots) // columns), across, high)
    for n, (picture, shot) in enumerate(zip(gallery.pictures, shots, strict=True)):
        left = MARGIN + (n % columns) * (wide + 2 * MARGIN)
        _row(axes, picture, shot, left, top - (n // columns) * (high + MARGIN))
    return figure


def grid(gallery: Gallery, shots: Sequence[Shot]) -> Figure:
    """Cards with the adversarial image, the old and the new prediction, and the size of the change.

    Args:
        gallery: the pictures.
        shots: the images of each picture, in the same order.
    """
    columns = min(8, max(len(shots), 4))
    high = _side_high(shots, CARD) + 4 * SIZE * letters.LEADING + 6
    across = columns * (CARD + MARGIN) + MARGIN
    figure, axes, top = _sheet(gallery, -(-len(shots) // columns), across, high)
    for n, (picture, shot) in enumerate(zip(gallery.pictures, shots, strict=True)):
        left = MARGIN + (n % columns) * (CARD + MARGIN)
        upper = top - (n // columns) * (high + MARGIN)
        base = _image(axes, shot.adversarial, left, upper, CARD)
        change = f"{picture.clean_prediction} → {picture.adversarial_prediction}"
        base = _words(axes, left, base, CARD, change, style.ADAPTIVE[0], lines=3)
        _words(axes, left, base, CARD, f"size {picture.size:.3g}", style.SOFT)
    return figure


def _row(axes: Axes, picture: Picture, shot: Shot, left: float, top: float) -> None:
    step = SIDE + SIGN
    for n, image in enumerate((shot.clean, shot.change, shot.adversarial)):
        base = _image(axes, image, left + n * step, top, SIDE)
    for n, sign in enumerate("+="):
        x = left + (n + 1) * step - SIGN / 2
        axes.text(x, (top + base) / 2, sign, fontsize=15, color=style.INK.light, ha="center", va="center")
    under = [
        (
            prediction(picture.clean_prediction, picture.clean_confidence),
            style.INK,
            f"true label {picture.label}",
        ),
        (shot.title, style.INK, shot.scale_words),
        (
            prediction(picture.adversarial_prediction, picture.adversarial_confidence),
            style.ADAPTIVE[0],
            f"{picture.attack}, {picture.threat}, size {picture.size:.3g}, {picture.model}",
        ),
    ]
    for n, (words, colour, more) in enumerate(under):
        x = left + n * step
        low = _words(axes, x, base, SIDE + SIGN - 6, words, colour, bold=True, lines=2)
        _words(axes, x, low, SIDE + SIGN - 6, more, style.SOFT, lines=2)


def prediction(name: str, confidence: float) -> str:
    """What a model said and how surely: sneaker, 87.2 %."""
    return f"{name}, {100 * confidence:.1f} %"


def _sheet(gallery: Gallery, rows: int, across: float, high: float) -> tuple[Figure, Axes, float]:
    """A white sheet with its heading, measured in points from the lower left; and where the pictures begin."""
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


def _side_high(shots: Sequence[Shot], side: float) -> float:
    """The height of the tallest image when all are `side` wide."""
    return max((side * shot.clean.shape[0] / shot.clean.shape[1] for shot in shots), default=0.0)


def _image(axes: Axes, image: object, left: float, top: float, side: float) -> float:
    """Draw an image and return where it ends."""
    array = np.asarray(image)
    base = top - side * float(array.shape[0]) / float(array.shape[1])
    way = "nearest" if small(array) else "antialiased"
    axes.imshow(array, extent=(left, left + side, base, top), interpolation=way, aspect="auto", zorder=2)
    axes.set_autoscale_on(False)
    return base


def _words(
    axes: Axes,
    x: float,
    top: float,
    room: float,
    words: str,
    colour: Colour,
    *,
    bold: bool = False,
    lines: int = 1,
) -> float:
    """Write wrapped words beneath `top` and return where they end; what does not fit ends in an ellipsis."""
    wrapped = letters.wrap(words, room, SIZE, bold)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][:-1] + "…"]
    for line in wrapped:
        top -= SIZE * letters.LEADING
        weight = "bold" if bold else "normal"
        axes.text(x, top, line, fontsize=SIZE, color=colour.light, weight=weight, parse_math=False)
    return top
