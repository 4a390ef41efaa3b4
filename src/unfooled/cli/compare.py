"""`unfooled compare`. It compares without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import shared, terminal


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another, of the same data.")],
    out: Annotated[Path | None, typer.Option(help="Write plots and comparison.json into this folder.")] = None,
    json: shared.Json = False,
) -> None:
    """Compare two runs example by example: paired differences with McNemar's test, and which examples differ."""
    from .. import comparison

    found = comparison.compare(a, b)
    plots = [] if out is None else comparison.draw(found, terminal.writable(out))
    if json:
        sys.stdout.write(found.to_json())
        return
    terminal.out.print()
    for table in comparison.tables(found):
        shared.show_table(table)
        terminal.out.print()
    terminal.out.print(f"• {comparison.sentence(found)}")
    if found.unshared_a or found.unshared_b:
        said = f"{found.unshared_a} examples of {found.a.name} and {found.unshared_b} of {found.b.name}"
        terminal.out.print(f"• Not counted, since only one run has judged them: {said}.")
    for warning in found.warnings:
        terminal.out.print(f"• {warning}")
    for path in plots:
        terminal.out.print(f"plot: {path}", soft_wrap=True)
