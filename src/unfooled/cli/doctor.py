"""`unfooled doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from ..doctor import Diagnosis

SHOWN = 10  # classes


def doctor(
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    threat: shared.Threat = "linf:8/255",
    protocol: Annotated[
        str, typer.Option(help="What an evaluation by it would cost.", autocompletion=complete("protocols"))
    ] = "fast",
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    defense: shared.Defense = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Say what is understood of a model and of data, what is wrong, and what an evaluation would cost.

    Exit status 1 if something would make its number invalid.
    """
    import msgspec

    from .. import defenses
    from ..doctor import diagnose

    named = shared.one_of(model, model_, "MODEL"), shared.one_of(data, data_, "DATA")
    wall = None if defense is None else defenses.parse(defense)
    with terminal.notes_shown():
        found = shared.load_data(named[1], resize, crop, classes, columns)
        network = shared.load_model(named[0], None if weights is None else Path(weights), found, options, allow_code)
        network = network if wall is None else defenses.defend(network, wall)
        diagnosis = diagnose(network, found, threat, protocol, seed)
    if json:
        terminal.print_json(msgspec.to_builtins(diagnosis))
    else:
        _show(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _show(found: Diagnosis) -> None:
    terminal.out.print()
    for title, facts in (("Model", found.model), ("Data", found.data)):
        _facts(title, facts)
    _names(found)
    _accuracy(found)
    shared.show_findings(found.findings)
    if not found.findings:
        terminal.sentence("The preflight found nothing to doubt.")
    seconds = sum(part.seconds for part in found.cost)
    passes = sum(part.forward + part.backward for part in found.cost)
    terminal.out.print()
    terminal.sentence(
        f"An evaluation by the protocol {found.protocol} would take at most {_duration(seconds)} here, and {passes:,} passes "
        "for each image; images that fall early cost less. --plan has it attack by attack."
    )


def _facts(title: str, facts: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column(style="dim", min_width=11)
    shown.add_column(overflow="fold")
    for name, value in facts.items():
        shown.add_row(Text(name), Text(value))
    terminal.out.print(Text(title, style="bold"))
    terminal.out.print(shown)
    terminal.out.print()


def _names(found: Diagnosis) -> None:
    from ..results import Table

    if all(one.data is None for one in found.classes) and all(one.model is None for one in found.classes):
        return
    differ = [one for one in found.classes if not one.agrees]
    first = differ or found.classes
    rows = [[str(one.label), one.data or "", one.model or ""] for one in first[:SHOWN]]
    more = f", {SHOWN} of {len(first)}" if len(first) > SHOWN else ""
    silent = [side for side in ("data", "model") if all(getattr(one, side) is None for one in found.classes)]
    what = f"Classes; the {silent[0]} name{'s' if silent[0] == 'model' else ''} none" if silent else "Classes"
    title = f"Classes whose names differ{more}" if differ else f"{what}{more}"
    shared.show_table(Table(id="classes", title=title, columns=["label", "in the data", "in the model"], rows=rows))
    if found.renamed:
        words = ",".join(f"{name}={label}" for name, label in found.renamed.items())
        terminal.sentence(
            f"The same names in another order: give the data the model's labels with --classes '{words}'."
        )
    terminal.out.print()


def _accuracy(found: Diagnosis) -> None:
    from ..results import percent

    n = found.clean.n
    terminal.sentence(f"Clean accuracy on {n} images: {percent(found.clean, interval=True)}.")
    if found.raw is not None:
        same = "the same" if found.raw.value == found.clean.value else percent(found.raw)
        terminal.sentence(f"By the pipeline of the model's own package, outside of unfooled: {same}.")
    terminal.out.print()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
