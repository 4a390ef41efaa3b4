"""From a run folder to its report: read, draw, write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from unfooled.errors import MissingData
from unfooled.report import encode, galleries, html, images, plots
from unfooled.report.html import Plot
from unfooled.report.images import Shot
from unfooled.results import Evaluation, Gallery, Panel
from unfooled.store import RunFolder

PICTURES = "pictures.safetensors"


def draw(folder: str | Path | RunFolder) -> Path:
    """Draw a run's report and plots from its folder, and return the report's path.

    Args:
        folder: the run folder. It must hold `evaluation.json`, and `pictures.safetensors` where it has galleries.

    Raises:
        MissingData: one of them is not there.
        DataError: one of them is damaged, or does not fit the other.
        OutputError: the folder cannot be written.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    evaluation = run.evaluation()
    shots = _shots(run, evaluation)
    with encode.settings():
        drawn = _draw_all(run, evaluation, shots)
    run.write_text("report.html", html.page(evaluation, drawn, shots))
    return run.path / "report.html"


def _draw_all(run: RunFolder, evaluation: Evaluation, shots: list[list[Shot]]) -> list[Plot]:
    """Write each panel and gallery as a file, and return the panels for the page."""
    names = _file_names([*evaluation.panels, *evaluation.galleries])
    drawn = []
    for panel, name in zip(evaluation.panels, names, strict=False):
        _write(run, name, plots.panel(panel), margin=12)
        drawn.append(_plot(panel, name))
    for gallery, pictures, name in zip(evaluation.galleries, shots, names[len(drawn) :], strict=True):
        sheet = galleries.grid if gallery.kind == "grid" else galleries.triptych
        _write(run, name, sheet(gallery, pictures))
    return drawn


def _shots(run: RunFolder, evaluation: Evaluation) -> list[list[Shot]]:
    """The images of each gallery."""
    if not any(gallery.pictures for gallery in evaluation.galleries):
        return [[] for _ in evaluation.galleries]
    if not (run.path / PICTURES).is_file():
        raise MissingData(f"{run.path} has galleries but no {PICTURES}. Repeat the run that makes it.")
    arrays: Mapping[str, np.ndarray] = run.arrays(PICTURES)
    images.check(arrays, evaluation)
    return [[images.shot(picture, arrays) for picture in gallery.pictures] for gallery in evaluation.galleries]


def _file_names(parts: Iterable[Panel | Gallery]) -> list[str]:
    """A file name for each part: its id, made fit for a file and unlike the others."""
    found: list[str] = []
    for part in parts:
        base = re.sub(r"[^\w.-]+", "-", part.id, flags=re.ASCII).strip(".-")[:80] or "plot"
        name, n = base, 2
        while name.lower() in [other.lower() for other in found]:
            name, n = f"{base}-{n}", n + 1
        found.append(name)
    return found


def _write(run: RunFolder, name: str, figure: Figure, margin: float = 0) -> None:
    run.write_bytes(f"plots/{name}.png", encode.png(figure, margin))
    run.write_text(f"plots/{name}.svg", encode.svg(figure, margin))


def _plot(panel: Panel, name: str) -> Plot:
    """The panel for the page, once for wide screens and once for telephones."""
    alt = f"{panel.title}. {panel.caption}".strip()
    wide, narrow = (
        encode.inline(encode.svg(plots.panel(panel, narrow=small, title=False)), f"{name}-{kind}", kind, alt)
        for small, kind in ((False, "wide"), (True, "narrow"))
    )
    return Plot(panel, wide, narrow)
