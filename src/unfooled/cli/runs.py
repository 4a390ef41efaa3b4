"""`unfooled runs`. It lists without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import MissingData, ParameterError, UnfooledError
from . import shared, terminal

if TYPE_CHECKING:
    from ..store import RunFolder

COLUMNS = ("name", "kind", "when", "model", "data", "threat", "protocol", "clean", "attacked", "proved", "trust")
MARKS = ("evaluation.json", "spec.json", "evidence.sqlite")  # a folder with one of them is a run


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where run folders lie, or one of them.")] = Path(
        "runs"
    ),
    forget: Annotated[
        list[int] | None,
        typer.Option(metavar="NUMBER", help="Set this shard of the run FOLDER aside, to be measured again."),
    ] = None,
    json: shared.Json = False,
) -> None:
    """List the runs below a folder: what was asked, what came out, which are unfinished or damaged."""
    if not folder.is_dir():
        raise MissingData(f"There is no folder {folder}.")
    if forget:
        _forget(folder, forget)
        return
    entries = [_entry(place, folder) for place in sorted(_places(folder))]
    if json:
        terminal.print_json(entries)
    elif not entries:
        terminal.out.print(f"There is no run in {folder}.", soft_wrap=True)
    else:
        _show(entries)


def _forget(place: Path, numbers: list[int]) -> None:
    from ..store import RunFolder

    if not _is_run(place):
        raise ParameterError(f"--forget needs a run folder, such as runs/NAME. {place} is none.")
    for number in numbers:
        aside = RunFolder(place).drop_shard(number)
        terminal.out.print(f"shard {number} now lies in {aside}; the same command measures it again", soft_wrap=True)


def _is_run(place: Path) -> bool:
    return any((place / name).is_file() for name in MARKS)


def _places(folder: Path) -> Iterator[Path]:
    """The run folders in a folder; none is sought inside another."""
    for root, below, _ in os.walk(folder):
        if _is_run(Path(root)):
            below.clear()
            yield Path(root)


def _entry(place: Path, folder: Path) -> dict[str, str]:
    """One run as text by column, with its `state`: finished, unfinished: …, or damaged: …; never an error."""
    from ..store import RunFolder

    run = RunFolder(place)
    entry = dict.fromkeys(COLUMNS, "") | {"name": str(place.relative_to(folder)) if place != folder else place.name}
    try:
        known = _finished(run) if (place / "evaluation.json").is_file() else _unfinished(run)
        if (place / "evidence.sqlite").is_file():
            run.evidence()
            run.logs()
        return entry | known
    except (UnfooledError, OSError) as error:
        return entry | {"state": f"damaged: {error}"}


def _finished(run: RunFolder) -> dict[str, str]:
    from ..results import percent

    found = run.evaluation()
    proved = found.certified_accuracy or (found.robust_accuracy.certified if found.robust_accuracy else None)
    return _asked(found.settings) | {
        "kind": found.kind,
        "when": found.created,
        "clean": percent(found.clean_accuracy) if found.clean_accuracy else "",
        "attacked": percent(found.robust_accuracy.attacked) if found.robust_accuracy else "",
        "proved": percent(proved) if proved else "",
        "trust": found.trust or "",
        "state": "finished",
    }


def _unfinished(run: RunFolder) -> dict[str, str]:
    spec = run.spec()
    when = datetime.fromtimestamp((run.path / "spec.json").stat().st_mtime, UTC)
    done = len(run.shards())
    state = f"unfinished: {done} of {spec['shards']} shards" if "shards" in spec else f"unfinished: {done} shards"
    return _asked(spec) | {"when": f"{when:%Y-%m-%d %H:%M} UTC", "state": state}


def _asked(settings: dict[str, str]) -> dict[str, str]:
    found = {name: str(settings.get(name) or "") for name in ("model", "data", "threat")}
    if settings.get("defense"):
        found["model"] += f" behind {settings['defense']}"
    return found | {"protocol": str(settings.get("protocol") or settings.get("attack") or settings.get("method") or "")}


def _show(entries: list[dict[str, str]]) -> None:
    from ..results import Table

    columns = [name for name in COLUMNS if name == "name" or any(entry[name] for entry in entries)]
    rows = [[entry[name] for name in columns] for entry in entries]
    shared.show_table(Table(id="runs", title="", columns=columns, rows=rows))
    for entry in entries:
        if entry["state"] != "finished":
            terminal.out.print(f"{entry['name']}: {entry['state']}", soft_wrap=True)
