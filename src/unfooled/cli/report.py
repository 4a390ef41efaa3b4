"""`unfooled report`. It draws without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared, terminal


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    json: shared.Json = False,
) -> None:
    """Draw a run's report again from its numbers."""
    from .. import report as reports
    from ..store import RunFolder

    folder = RunFolder(run)
    evaluation = folder.evaluation()
    page = reports.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)
