"""`unfooled list`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import unknown
from . import shared, terminal

KINDS = ("attacks", "certificates", "data", "defenses", "losses", "models", "protocols", "recipes", "threats")


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=", ".join(KINDS) + "; else all.",
            autocompletion=lambda incomplete: [one for one in KINDS if one.startswith(incomplete)],
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Of attacks: options, cost, access, when they fail.")
    ] = False,
    json: shared.Json = False,
) -> None:
    """List what there is by name."""
    from ..results import Table

    if kind is not None and kind not in KINDS:
        raise unknown("list of", kind, KINDS)
    if verbose and kind == "attacks":
        _attacks(json)
        return
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
    if kind == "certificates":
        from ..certificates.asked import ABOUT

        return dict(ABOUT)
    if kind == "models":
        from .. import models

        networks = dict.fromkeys(models.NETWORKS, "a network to train, or to give weights to")
        return {name: about for name, (_, _, about) in models.BUNDLED.items()} | networks
    if kind == "recipes":
        from ..training import RECIPES

        return {name: recipe.about for name, recipe in RECIPES.items()}
    if kind == "attacks":
        from ..attacks import ATTACKS, Cascade, Escalate, Restarts, Targeted
        from ..attacks.facts import facts

        plans = {"restarts": Restarts, "targeted": Targeted, "cascade": Cascade, "escalate": Escalate}
        attacks = {name: f"{(f := facts(item)).title}: {f.idea}" for name, item in ATTACKS.items()}
        return attacks | {name: _first_line(item) for name, item in plans.items()}
    if kind == "protocols":
        from ..protocols import PROTOCOLS

        return {name: protocol.about for name, protocol in PROTOCOLS.items()}
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


def _attacks(json: bool) -> None:
    """The facts of every attack, as on its page in the docs."""
    import msgspec
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    from ..attacks import ATTACKS
    from ..attacks.facts import facts

    found = [facts(kind) for kind in ATTACKS.values()]
    if json:
        terminal.print_json([msgspec.to_builtins(one) for one in found])
        return
    for one in found:
        terminal.out.print(Text.assemble((one.name, "bold"), f"  {one.title}: {one.idea}"))
        lines = [
            ("norms", ", ".join(one.norms)), ("access", one.access), ("cost", one.cost), ("fails", one.fails),
            ("from", one.reference),
            *((f"{option.name}={option.default}", option.meaning) for option in one.options),
        ]  # fmt: skip
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        for name, words in lines:
            grid.add_row(Text(name), Text(words))
        terminal.out.print(Padding(grid, (0, 0, 1, 2)))
