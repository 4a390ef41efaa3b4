"""Bars of progress."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Done(ProgressColumn):
    """How many of how many, and how many a second; of work that is one thing, the share."""

    def render(self, task: Task) -> Text:
        """For Rich."""
        if task.total is None or task.total <= 1:
            return Text(f"{task.percentage:3.0f} %")
        rate = f"  {task.speed:.0f}/s" if task.speed is not None else ""
        return Text(f"{task.completed:.0f}/{task.total:.0f}{rate}")


def bars(console: Console) -> Progress:
    """A display on that console, gone when it ends; nothing where that is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        Done(),
        TextColumn("{task.fields[note]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
