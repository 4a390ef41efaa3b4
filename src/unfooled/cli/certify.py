"""`unfooled certify`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ParameterError
from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from ..studies import proved


def certify(
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    threat: shared.Threat = "linf:8/255",
    method: Annotated[
        str,
        typer.Option(
            help="auto, ibp, crown, alpha-crown:steps=50, ibp,crown; or smoothing:sigma=0.25,draws=10000.",
            autocompletion=complete("proofs"),
        ),
    ] = "auto",
    curve: Annotated[int, typer.Option(help="Images that the curve over eps is drawn from; 0: no curve.")] = 50,
    out: Annotated[
        Path | None, typer.Option(help="The run folder, else one in runs/; the same command goes on with it.")
    ] = None,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    defense: Annotated[
        str | None,
        typer.Option(
            help="Put a defense in front: blur:sigma=1. Proved through, if it has bounds.",
            autocompletion=complete("defenses"),
        ),
    ] = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    batch_size: shared.Batch = None,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Prove that a model's answers hold: certified accuracy, a lower bound that no attack can break, and a report.

    auto tries ibp, then crown, then alpha-crown, each on what is left; what would take too long is left out, and told.
    """
    from .. import defenses, report
    from ..certificates.asked import asked
    from ..store import RunFolder
    from ..studies import proved
    from ..threats import Threat

    named = shared.one_of(model, model_, "MODEL"), shared.one_of(data, data_, "DATA")
    allowed = Threat.parse(threat)
    asked(method, allowed)
    if curve < 0:
        raise ParameterError(f"--curve must be 0 or more images. Got {curve}.")
    wall = None if defense is None else defenses.parse(defense)
    question = {
        "model": named[0], "weights": str(weights or ""), "model_options": shlex.join(options or ()), "data": named[1],
        "defense": defense or "", "resize": resize or "", "crop": crop or "", "columns": columns or "",
    }  # fmt: skip
    mine = (*question.values(), classes, allowed, method, curve, seed)
    folder = RunFolder(terminal.writable(out or shared.own_folder("certify", *mine)))
    with terminal.notes_shown():
        found = shared.load_data(named[1], resize, crop, classes, columns)
        network = shared.load_model(named[0], weights, found, options, allow_code)
        network = network if wall is None else defenses.defend(network, wall)
        with terminal.progress() as bars:
            task = bars.add_task(method, total=len(found), note="")

            def show(at: proved.Running) -> None:
                part = min(proved.SHARD, at.total - at.done) * at.within
                note = f"proved {at.proved / at.done:.3f}" if at.done else ""
                bars.update(task, completed=at.done + part, note=note)

            settings = {name: value for name, value in question.items() if value} | {"data": found.name}
            evaluation = proved.run(
                folder,
                network,
                found,
                allowed,
                method,
                settings,
                seed=seed,
                curve=curve,
                batch_size=batch_size,
                show=show,
            )
        page = report.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)
