"""`unfooled study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._version import __version__
from ..errors import ParameterError
from ..studies.registry import STUDIES
from ..studies.registry import study as named
from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from ..data import Dataset


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help=f"Which one: [b]{', '.join(STUDIES)}[/].", autocompletion=complete("studies")
        ),
    ],
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Images to attack, instead of the study's own.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Your own network, instead of the study's.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Attack so many images, instead of 1,000 (study defenses).")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this defense alone; may be repeated (study defenses).",
            autocompletion=complete("defenses"),
        ),
    ] = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    out: Annotated[Path | None, typer.Option(help="The run folder, else runs/study/NAME.")] = None,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Make a whole study of one command: what is at stake, measured, in a report. Run again, it goes on."""
    entry = named(name)
    run = entry.load()
    if not entry.parts and (images is not None or only):
        raise ParameterError(f"--images and --only are for the study of defenses. The study {name} takes --data.")
    if model is None and (weights is not None or options):
        raise ParameterError("--weights and --model-option are a --model's. Name it too, or leave them out.")
    from .. import report
    from ..store import RunFolder
    from ..studies.case import Asked

    def brought(found: Dataset) -> Any:
        return shared.load_model(str(model), weights, found, options, allow_code)

    question = {"study": name, "data": data, "model": model, "weights": weights, "model_options": options, "seed": seed}
    question |= {} if images is None else {"images": images}  # what is measured `only` does not change what is measured
    folder = RunFolder(terminal.writable(out or Path("runs/study") / name))
    spec = {key: str(value) for key, value in question.items() if value is not None} | {"unfooled": __version__}
    with terminal.notes_shown(), folder.running(spec):
        with terminal.progress() as bars:
            task = bars.add_task("starting", total=1.0, note="")
            asked = Asked(
                data, None if model is None else brought, str(model or ""), lambda spec: shared.load_data(spec), seed,
                lambda text, share: bars.update(task, description=text, completed=share), images, tuple(only or ()),
            )  # fmt: skip
            evaluation, album = run(asked, folder)
        if album.clean:
            folder.write_arrays("pictures.safetensors", album.arrays())
        folder.write_evaluation(evaluation)
        page = report.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation, tables=entry.tables)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)
