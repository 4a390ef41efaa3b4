"""What a command shows: progress on a terminal, nothing elsewhere; tables; JSON on request."""

from __future__ import annotations

import json
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ..errors import Note, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress

out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on standard error; silent where that is not a terminal."""
    from .bars import bars  # a tenth of the time that the help takes

    with bars(err) as shown:
        yield shown


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show the package's notes as lines on standard error, each once."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, Note) and str(message) not in shown:
            shown.add(str(message))
            err.print(Text("note ", style="yellow") + Text(str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        warnings.showwarning = show
        yield


def sentence(text: str, mark: str = "• ", style: str = "") -> None:
    """Print a sentence behind its mark, later lines indented; a percentage is never cut in two."""
    whole = re.sub(r"(?<=\d) (?=%)", "\u00a0", text)
    lines = textwrap.wrap(whole, max(20, out.width - len(mark)), break_on_hyphens=False) or [""]
    for at, line in enumerate(lines):
        start = mark if at == 0 else " " * len(mark)
        out.print(Text(start + line.replace("\u00a0", " "), style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def writable(folder: Path) -> Path:
    """The folder, which can be written: an `OutputError` now rather than after an hour of work. Nothing is left there."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".unfooled-probe"
        probe.touch()
        probe.unlink()
        for place in made:
            place.rmdir()
    except OSError as error:
        raise OutputError(f"Cannot write to {folder}: {error.strerror}. Choose another folder with --out.") from error
    return folder
