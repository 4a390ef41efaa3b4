"""`unfooled explore`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ParameterError
from . import shared, terminal

MODEL, DATA = "fashion-mnist/plain", "fashion-mnist-sample"  # what is explored where nothing is named


def explore(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RUN", help="A model, as for evaluate; or a run folder. Without: the bundled ones."
        ),
    ] = None,
    data: shared.DataArgument = None,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    image: Annotated[int, typer.Option(min=0, help="The picture to open with, by its number in the data.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on. Other than loopback only with a password.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port; else the first free from 7860.")] = None,
    password_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the page's password.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page to try attacks by hand: the lesson of FGSM, every attack on any picture, a run's examples."""
    from ..explorer import serve  # sets what Gradio must know before it is imported

    password = _password(password_env)
    serve.check_host(host, password)
    place = _run_folder(model, data, model_, data_)
    with terminal.notes_shown():
        if place is not None:
            page = _of_run(place)
        else:
            named = _named(model, model_, MODEL, "MODEL"), _named(data, data_, DATA, "DATA")
            found = shared.load_data(named[1], resize, crop, classes, columns)
            network = shared.load_model(named[0], weights, found, options, allow_code)
            page = _of_model(network, found, named[0], image)
        served = serve.serve(page, host, port, password, browser)
        terminal.out.print(f"explorer: {served.address}\nCtrl+C ends it.", soft_wrap=True)
        try:
            served.wait()
        finally:
            served.close()


def _password(name: str | None) -> str | None:
    """The password in an environment variable, so that no process list shows it."""
    if name is None:
        return None
    if name not in os.environ:
        raise ParameterError(f"There is no environment variable {name}, which --password-env names.")
    return os.environ[name]


def _run_folder(model: str | None, data: str | None, model_: str | None, data_: str | None) -> Path | None:
    """The run folder, where the first argument names one."""
    if model is None or not Path(model).is_dir() or not any((Path(model) / name).exists() for name in _MARKS):
        return None
    if (data, model_, data_) != (None, None, None):
        raise ParameterError(f"{model} is a run folder: it is explored by itself, without MODEL and DATA.")
    return Path(model)


_MARKS = ("evaluation.json", "spec.json")


def _named(argument: str | None, option: str | None, bundled: str, name: str) -> str:
    return bundled if argument is None and option is None else shared.one_of(argument, option, name)


def _of_run(place: Path) -> Any:
    from ..explorer import run_page
    from ..explorer.runs import Run
    from ..store import RunFolder

    run = Run(RunFolder(place))
    return lambda: run_page.build(run)


def _of_model(network: Any, found: Any, name: str, image: int) -> Any:
    from ..explorer import page
    from ..explorer.room import Room
    from ..explorer.state import Bench

    bench = Bench(network, found, name)
    bench.subject(image)  # refused now, where it does not exist
    return lambda: page.build(Room(bench), image)
