"""How a training run went: accuracy against epochs, on the images held out and on those trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from unfooled.files import whole
from unfooled.intervals import clopper_pearson
from unfooled.report import plots
from unfooled.results import Curve, Estimate, Mark, Panel


class Ended(Protocol):
    """What is read of an epoch."""

    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def accuracy(self) -> float: ...  # noqa: D102
    @property
    def clean(self) -> float: ...  # noqa: D102
    @property
    def robust(self) -> float: ...  # noqa: D102


def training_panel(history: Sequence[Ended], chosen: int, held: int, title: str) -> Panel:
    """The panel of a run that held so many images out; the epoch that was chosen is marked."""
    epochs = [float(entry.epoch) for entry in history]
    seen = [Estimate(entry.accuracy, entry.accuracy, entry.accuracy, 0, "running mean") for entry in history]
    curves = [Curve("in training", epochs, seen, "clean")]
    marks = []
    for name in ("clean", "robust"):
        values = [float(getattr(entry, name)) for entry in history]
        if all(map(math.isfinite, values)):
            told = [clopper_pearson(round(value * held), held) for value in values]
            curves.append(Curve(f"{name}, held out", epochs, told, family=name))
            marks = [Mark(f"epoch {chosen}", float(chosen), told[chosen - 1], family=name)]
    return Panel("training", title, "epoch", curves, marks)


def draw_training(history: Sequence[Ended], chosen: int, held: int, title: str, path: Path) -> None:
    """Write the panel as a PNG. Raises `OutputError`."""
    figure = plots.panel(training_panel(history, chosen, held, title))
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
