"""`unfooled verify`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared, terminal

if TYPE_CHECKING:
    from ..verification import Verification

SHOWN = 20  # problems that are printed; --json has all


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    model: Annotated[str | None, typer.Option(help="The model, if not the one that the run names.")] = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    data: Annotated[str | None, typer.Option(help="The data, if not those that the run names.")] = None,
    defense: shared.Defense = None,
    threat: Annotated[str | None, typer.Option(help="The threat, if not the one that the run names.")] = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    json: shared.Json = False,
) -> None:
    """Check every example of a run from scratch against the model; exit 1 if any does not hold."""
    import msgspec

    from .. import defenses
    from ..store import RunFolder
    from ..verification import verify as check

    folder = RunFolder(run)
    spec = folder.spec()
    named = _named(spec, folder, model=model, data=data)
    brought = weights or (None if model else spec.get("weights")) or None
    wall = defense or (None if model else spec.get("defense")) or None
    told = (("resize", resize), ("crop", crop), ("columns", columns))
    resized, cropped, columns = (given or spec.get(name) for name, given in told)
    with terminal.notes_shown():
        found = shared.load_data(named["data"], resized, cropped, classes, columns)
        chosen = options or (None if model else shlex.split(spec.get("model_options", "")))
        network = shared.load_model(
            named["model"], None if brought is None else Path(brought), found, chosen, allow_code
        )
        network = network if wall is None else defenses.defend(network, defenses.parse(wall))
        with terminal.progress() as bars:
            task = bars.add_task("verifying", total=None, note="")
            result = check(
                folder, network, found, threat, lambda done, total: bars.update(task, completed=done, total=total)
            )
    if json:
        terminal.print_json(msgspec.to_builtins(result))
    else:
        _show(result)
    if not result.holds:
        raise typer.Exit(1)


def _named(spec: dict[str, Any], folder: Any, **given: str | None) -> dict[str, str]:
    from ..errors import ParameterError

    found = {}
    for name, value in given.items():
        found[name] = value or spec.get(name) or ""
        if not found[name]:
            raise ParameterError(f"{folder.path}/spec.json does not name the {name} of the run. Give it with --{name}.")
    return found


def _show(result: Verification) -> None:
    from ..results import Table

    if result.problems:
        rows = [
            ["the run" if p.example is None else str(p.example), p.what, p.recorded, p.found]
            for p in result.problems[:SHOWN]
        ]
        more = len(result.problems) - len(rows)
        title = "What does not hold" + (f" (and {more} more: --json)" if more else "")
        columns = ["example", "what", "recorded", "found"]
        shared.show_table(Table(id="problems", title=title, columns=columns, rows=rows))
    count = f"{result.examples} examples, {result.adversarial} of them adversarial"
    if result.unjudged:
        count += f", {result.unjudged} not judged (logits that are not finite)"
    bad = len({problem.example for problem in result.problems})
    verdict = "all hold" if result.holds else f"{bad} {'does' if bad == 1 else 'do'} not hold"
    for note in result.notes:
        terminal.out.print(f"• {note}")
    terminal.out.print(f"{result.run}: {count}; {verdict}.", soft_wrap=True)
