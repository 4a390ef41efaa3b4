"""The page: one file that opens offline, from a template with escaping on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from unfooled.report import evaluated, galleries, images, style, words
from unfooled.report.images import Shot
from unfooled.results import Evaluation, Panel, percent

KINDS = {
    "demo": "Demonstration",
    "seed-study": "Study",
    "study": "Study",
    "sweep": "Sweep",
    "attack": "Attack",
    "certificate": "Certificate",
    "evaluation": "Evaluation",
}


class Plot(NamedTuple):
    """A panel with its drawings as inline SVG, for wide and for narrow screens."""

    panel: Panel
    wide: Markup
    narrow: Markup


def page(evaluation: Evaluation, plots: Sequence[Plot], shots: Sequence[Sequence[Shot]]) -> str:
    """The report as HTML.

    Args:
        evaluation: what is reported.
        plots: its panels, drawn.
        shots: the images of each gallery.
    """
    name, more = "report.html.j2", {"terms": words.terms(evaluation)}
    if evaluated.fits(evaluation):
        name, more = "evaluation.html.j2", evaluated.context(evaluation)
    template = _environment().get_template(name)
    return template.render(_context(evaluation, plots, shots) | more).strip() + "\n"


def _context(evaluation: Evaluation, plots: Sequence[Plot], shots: Sequence[Sequence[Shot]]) -> dict[str, Any]:
    """What every page takes."""
    curves = [curve for panel in evaluation.panels for curve in panel.curves]
    return {
        "e": evaluation,
        "kind": KINDS.get(evaluation.kind, evaluation.kind),
        "plots": plots,
        "galleries": [
            (gallery, list(zip(gallery.pictures, pictures, strict=True)))
            for gallery, pictures in zip(evaluation.galleries, shots, strict=True)
        ],
        "both": {"adaptive", "non-adaptive"} <= {curve.role for curve in curves},
        "bands": words.bands(evaluation.panels),
        "total": _total(evaluation),
        "light": Markup(style.css_variables()),
        "dark": Markup(style.css_variables(dark=True)),
    }


def _total(evaluation: Evaluation) -> tuple[int, int, float]:
    """Forward passes, backward passes and seconds in all."""
    cost = evaluation.cost
    return sum(c.forward for c in cost), sum(c.backward for c in cost), sum(c.seconds for c in cost)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        numeric=words.numeric,
        in_parts=words.in_parts,
        values=words.values,
        together=words.together,
        size=words.size,
        duration=words.duration,
        percent=percent,
        measured=evaluated.measured,
        points=evaluated.points,
        each=evaluated.each,
        uri=images.uri,
        small=images.small,
    )
    environment.globals["prediction"] = galleries.prediction
    return environment


def _template(name: str) -> str | None:
    file = files("unfooled.report") / "templates" / name
    return file.read_text(encoding="utf-8") if file.is_file() else None
