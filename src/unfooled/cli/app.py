"""The commands by name, in the order in which help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from .attack import attack
from .certify import certify
from .compare import compare
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .explore import explore
from .listing import list_
from .report import report
from .runs import runs
from .study import study
from .sweep import sweep
from .train import train
from .verify import verify

app = typer.Typer(
    name="unfooled",
    help="Robustness numbers you can trust, and models that earn them.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"unfooled {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Say how easily an image classifier is fooled, harden it, and say how far each number can be believed."""


app.command()(demo)
app.command()(doctor)
app.command()(evaluate)
app.command()(attack)
app.command()(certify)
app.command()(sweep)
app.command()(study)
app.command()(train)
app.command()(report)
app.command()(explore)
app.command()(runs)
app.command()(compare)
app.command()(verify)
app.command("list")(list_)
