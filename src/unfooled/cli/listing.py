"""`unfooled list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import unknown
from ..results import Table
from . import shared, terminal

KINDS = ("attacks", "data", "defenses", "losses", "models", "recipes", "threats")


def list_(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help=", ".join(KINDS) + "; else all.")] = None,
    json: shared.Json = False,
) -> None:
    """List what there is by name."""
    if kind is not None and kind not in KINDS:
        raise unknown("list of", kind, KINDS)
    found = {one: _entries(one) for one in KINDS if kind in (None, one)}
    if json:
        terminal.print_json(found if kind is None else found[kind])
        return
    for name, entries in found.items():
        rows = [[entry, about] for entry, about in entries.items()]
        shared.show_table(Table(id=name, title=name, columns=["name", "what it is"], rows=rows))


def _entries(kind: str) -> dict[str, str]:
    if kind == "data":
        from .. import data

        return {case.name: f"{case.about} ({case.images:,} images; {case.terms})" for case in data.cases()}
    if kind == "models":
        from .. import models

        networks = dict.fromkeys(models.NETWORKS, "a network to train, or to give weights to")
        return {name: about for name, (_, about) in models.BUNDLED.items()} | networks
    if kind == "recipes":
        from ..training import RECIPES

        return {name: recipe.about for name, recipe in RECIPES.items()}
    if kind == "attacks":
        from ..attacks import ATTACKS, Cascade, Restarts, Targeted

        plans = {"restarts": Restarts, "targeted": Targeted, "cascade": Cascade}
        return {name: _first_line(item) for name, item in {**ATTACKS, **plans}.items()}
    if kind == "defenses":
        from ..defenses import DEFENSES

        return {name: _first_line(item) for name, item in DEFENSES.items()}
    if kind == "losses":
        from ..losses import LOSSES

        return {name: _first_line(item) for name, item in LOSSES.items()}
    from ..threats import THREATS

    return {name: _first_line(item) for name, item in THREATS.items()}


def _first_line(item: object) -> str:
    return (item.__doc__ or "").strip().splitlines()[0]
