"""`unfooled demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared, terminal


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
    count: Annotated[int, typer.Option(min=10, max=1000, help="How many of the bundled images.")] = 500,
    json: shared.Json = False,
) -> None:
    """Show it all on bundled images and models: FGSM, PGD, blur both ways, a hardened model. Offline, about a minute."""
    from .. import report
    from ..store import RunFolder
    from ..studies.demo import demo as run

    folder = RunFolder(terminal.writable(out))
    folder.begin({"demo": "fashion-mnist-sample"})
    with terminal.notes_shown(), terminal.progress() as bars:
        task = bars.add_task("starting", total=1.0, note="")
        evaluation, album = run(count, lambda text, share: bars.update(task, description=text, completed=share))
    folder.write_arrays("pictures.safetensors", album.arrays())
    folder.write_evaluation(evaluation)
    page = report.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation, tables=1)
        seconds = sum(cost.seconds for cost in evaluation.cost)
        terminal.out.print(f"\nreport: {page}  ({seconds:.0f} s of compute; plots in {out / 'plots'})")
