"""The page: one file that opens offline, from a template with escaping on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from unfooled.report import galleries, images, style, words
from unfooled.report.images import Shot
from unfooled.results import Evaluation, Panel, percent

KINDS = {"demo": "Demonstration", "seed-study": "Study", "sweep": "Sweep", "attack": "Attack"}


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
    curves = [curve for panel in evaluation.panels for curve in panel.curves]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            e=evaluation,
            kind=KINDS.get(evaluation.kind, evaluation.kind),
            plots=plots,
            galleries=[
                (gallery, list(zip(gallery.pictures, pictures, strict=True)))
                for gallery, pictures in zip(evaluation.galleries, shots, strict=True)
            ],
            both={"adaptive", "non-adaptive"} <= {curve.role for curve in curves},
            bands=words.bands(evaluation.panels),
            terms=words.terms(evaluation),
            total=_total(evaluation),
            light=Markup(style.css_variables()),
            dark=Markup(style.css_variables(dark=True)),
        )
        .strip()
        + "\n"
    )


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
        uri=images.uri,
        small=images.small,
    )
    environment.globals["prediction"] = galleries.prediction
    return environment


def _template(name: str) -> str | None:
    file = files("unfooled.report") / "templates" / name
    return file.read_text(encoding="utf-8") if file.is_file() else None
