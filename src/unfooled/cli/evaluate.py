"""`unfooled evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared, terminal

if TYPE_CHECKING:
    from ..pool import Progress


def evaluate(
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    threat: shared.Threat = "linf:8/255",
    protocol: Annotated[
        str, typer.Option(help="quick, fast, standard or thorough; see [b]unfooled list protocols[/].")
    ] = "fast",
    out: Annotated[Path | None, typer.Option(help="Write evaluation.json and a report into this folder.")] = None,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    defense: shared.Defense = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    batch_size: shared.Batch = None,
    budget: shared.Budget = None,
    draws: shared.Draws = 1,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Evaluate a model by a protocol: clean and robust accuracy with intervals, and what each attack did."""
    import msgspec

    from .. import defenses, protocols, report
    from ..evaluation import evaluate as measure
    from ..store import RunFolder
    from ..studies.common import command_line
    from ..threats import Threat

    named = shared.one_of(model, model_, "MODEL"), shared.one_of(data, data_, "DATA")
    allowed = Threat.parse(threat)
    protocols.named(protocol, allowed)
    wall = None if defense is None else defenses.parse(defense)
    place = None if out is None else terminal.writable(out)
    with terminal.notes_shown():
        found = shared.load_data(named[1], resize, crop, classes)
        network = shared.load_model(named[0], weights, found)
        network = network if wall is None else defenses.defend(network, wall)
        with terminal.progress() as bars:
            task = bars.add_task(protocol, total=None, note="")

            def show(at: Progress) -> None:
                note = f"robust {at.correct - at.fooled} of {at.correct}"
                bars.update(task, description=at.attack, completed=at.ended, total=at.trials, note=note)

            evaluation = measure(
                network, found, allowed, protocol, seed=seed, batch_size=batch_size, budget=budget, draws=draws,
                progress=show,
            )  # fmt: skip
    brought = {"model": named[0], "weights": str(weights or ""), "defense": defense or ""}
    settings = {name: value for name, value in brought.items() if value} | evaluation.settings
    evaluation = msgspec.structs.replace(evaluation, settings=settings, command=command_line())
    if place is not None:
        RunFolder(place).write_evaluation(evaluation)
    if json:
        terminal.out.print_json(evaluation.to_json())
        return
    shared.show(evaluation)
    if place is not None:
        terminal.out.print(f"\nreport: {report.draw(RunFolder(place))}", soft_wrap=True)
