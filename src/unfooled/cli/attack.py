"""`unfooled attack`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import shared, terminal
from .completion import complete


def attack(
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    threat: shared.Threat = "linf:8/255",
    method: Annotated[
        str,
        typer.Option(
            "--attack",
            "--method",
            help="An attack or a plan: fgsm, pgd:steps=40, restarts:5(pgd).",
            autocompletion=complete("attacks"),
        ),
    ] = "pgd",
    out: Annotated[
        Path | None, typer.Option(help="The run folder, else one in runs/; the same command goes on with it.")
    ] = None,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    defense: shared.Defense = None,
    target: Annotated[
        int | None, typer.Option(help="The class that the model shall answer (others are skipped).")
    ] = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    batch_size: shared.Batch = None,
    budget: shared.Budget = None,
    draws: shared.Draws = 1,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Attack a model on images; write the adversarial images, the evidence and a report."""
    import torch

    from .. import attacks, defenses, report
    from ..errors import DataError
    from ..store import RunFolder
    from ..studies import single
    from ..threats import Threat

    named = shared.one_of(model, model_, "MODEL"), shared.one_of(data, data_, "DATA")
    allowed, plan = Threat.parse(threat), attacks.parse(method)
    wall = None if defense is None else defenses.parse(defense)
    place = terminal.writable(
        out
        or shared.own_folder(
            "attack",
            *named,
            weights,
            options,
            allowed,
            plan,
            defense,
            target,
            resize,
            crop,
            classes,
            budget,
            draws,
            seed,
        )
    )
    with terminal.notes_shown():
        found = shared.load_data(named[1], resize, crop, classes, columns)
        network = shared.load_model(named[0], weights, found, options, allow_code)
        targets = keep = None
        if target is not None:
            keep = (found.labels != target).nonzero().squeeze(1)
            if not len(keep):
                raise DataError(f"Every image of {found.name} has the label {target}, the target.")
            files = tuple(found.files[at] for at in keep) if found.files else ()
            found = replace(found, images=found.images[keep], labels=found.labels[keep], files=files)
            targets = torch.full_like(found.labels, target)
        if wall is not None:
            network = defenses.defend(network, wall)
        settings = {
            "model": named[0],
            "weights": str(weights or ""),
            "data": found.name,
            "defense": defense or "",
        }
        folder = RunFolder(place)
        with terminal.progress() as bars:
            task = bars.add_task(str(plan), total=len(found), note="")

            def show(at: single.Running) -> None:
                part = 0.0
                if at.within is not None and at.within.trials:
                    part = min(single.SHARD, at.total - at.done) * at.within.ended / at.within.trials
                note = (
                    f"accuracy {at.robust / at.done:.3f}"
                    if at.done
                    else f"{at.within.fooled if at.within else 0} fooled"
                )
                bars.update(task, completed=at.done + part, note=note)

            evaluation = single.run(
                folder, network, found, allowed, plan, {k: v for k, v in settings.items() if v}, seed=seed,
                targets=targets, examples=keep, show=show, batch_size=batch_size, budget=budget, draws=draws,
            )  # fmt: skip
        page = report.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)
