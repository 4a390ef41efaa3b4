"""What several commands read from their options, and how they show an evaluation."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, ParameterError
from . import terminal
from .completion import complete

if TYPE_CHECKING:
    from ..data import Dataset
    from ..results import Evaluation, Finding, Table

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="fashion-mnist/plain, file.py:factory, timm:NAME, hf:NAME, model.onnx, http://… See the guide.",
        autocompletion=complete("models"),
    ),
]
DataArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="mnist, cifar10:test:0-1000, photos/, images.npz, table.csv, hf:ORG/NAME …",
        autocompletion=complete("data"),
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The same as MODEL.", autocompletion=complete("models"))
]
DataOption = Annotated[str | None, typer.Option("--data", help="The same as DATA.", autocompletion=complete("data"))]
Weights = Annotated[Path | None, typer.Option(help="Weights for the model: safetensors or a state dict.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--model-option", metavar="NAME=VALUE", help="Of the form that the model is stored in; repeatable."),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Open model files that run code of their own: pickles, Lambda layers.")
]
Resize = Annotated[str | None, typer.Option(help="Resize images: SIDE, or HEIGHTxWIDTH.")]
Crop = Annotated[str | None, typer.Option(help="Crop the centre: SIDE, or HEIGHTxWIDTH.")]
CLASSES = typer.Option(
    "--classes", help="Class folders and the model's indices: cat=3,dog=5, or a JSON file of such an object."
)
Classes = Annotated[str | None, CLASSES]
Columns = Annotated[str | None, typer.Option(help="Columns of a table: image=scan,label=diagnosis.")]
Threat = Annotated[
    str,
    typer.Option(
        help="The set of changes allowed: linf:8/255, l2:0.5, l1:12, l0:20.", autocompletion=complete("threats")
    ),
]
Defense = Annotated[
    str | None,
    typer.Option(
        help="Put a defense in front: blur:sigma=1. Attacked adaptively.", autocompletion=complete("defenses")
    ),
]
Batch = Annotated[int | None, typer.Option(help="Images in work at a time.")]
Budget = Annotated[int | None, typer.Option(help="Passes per image at most, over the whole plan.")]
Draws = Annotated[int, typer.Option(help="Passes that a gradient is averaged over, for a random model.")]
Seed = Annotated[int, typer.Option(help="Of all random numbers.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def one_of(argument: str | None, option: str | None, name: str) -> str:
    """The value given as an argument or as an option."""
    if argument is not None and option is not None:
        raise ParameterError(f"{name} is given twice, as an argument and as --{name.lower()}. Give it once.")
    value = argument if option is None else option
    if value is None:
        raise ParameterError(f"{name} is missing: give it as an argument or as --{name.lower()}.")
    return value


def size(text: str | None, name: str) -> int | tuple[int, int] | None:
    """32 or 32x48."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdigit() for part in parts) or len(parts) > 2:
        raise ParameterError(f"--{name} must be SIDE or HEIGHTxWIDTH, such as 32 or 32x48. Got {text!r}.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def load_data(
    spec: str,
    resize: str | None = None,
    crop: str | None = None,
    classes: str | dict[str, int] | None = None,
    columns: str | None = None,
) -> Dataset:
    """The data set of a spec, with a bar for a download."""
    from .. import data

    with terminal.progress() as bars:
        tasks: dict[str, object] = {}

        def downloaded(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(f"downloading {file}", total=total or None, note="")
            bars.update(tasks[file], completed=done)  # type: ignore[arg-type]

        return data.load(
            spec,
            resize=size(resize, "resize"),
            crop=size(crop, "crop"),
            classes=read_classes(classes),
            columns=columns,
            progress=downloaded,
        )


def read_classes(words: str | dict[str, int] | None) -> dict[str, int] | None:
    """cat=3,dog=5, or a file with a JSON object from folder names to indices."""
    if words is None or isinstance(words, dict):
        return words
    path = Path(words)
    if not path.is_file():
        pairs = [part.partition("=") for part in words.split(",")]
        if not all(name and index.strip().isdigit() for name, _, index in pairs):
            raise ParameterError(f"--classes must be NAME=INDEX,… such as cat=3,dog=5, or a JSON file. Got {words!r}.")
        return {name.strip(): int(index) for name, _, index in pairs}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.") from None
    if not isinstance(found, dict) or not all(type(v) is int and v >= 0 for v in found.values()):
        raise DataError(f'{path} must hold an object from class folders to indices, such as {{"cat": 3, "dog": 5}}.')
    return found


def own_folder(kind: str, *question: object) -> Path:
    """A folder in runs/ that belongs to this question alone: asking the same again finds it again."""
    return Path("runs") / f"{kind}-{zlib.crc32(repr([str(part) for part in question]).encode()):08x}"


def load_model(
    spec: str, weights: Path | None, data: Dataset, options: Sequence[str] | None = None, allow_code: bool = False
) -> Any:
    """The model of a spec, shaped for the data where it is one of this package's networks."""
    from .. import models

    shape: dict[str, int] = {}
    if spec in models.NETWORKS:
        channels, side = image_shape(data)
        shape = {"channels": channels, "size": side, "classes": len(data.classes) or int(data.labels.max()) + 1}
    return models.load(spec, weights, allow_code=allow_code, **(shape | read_options(options)))


def read_options(words: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE each: numbers, true and false as such, anything else as a text."""
    from .. import text

    found = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not (equals and name.strip().isidentifier()):
            raise ParameterError(f"--model-option must be NAME=VALUE, such as rate=5. Got {word!r}.")
        if name in found:
            raise ParameterError(f"--model-option {name} is given twice. Give it once.")
        try:
            found[name.strip()] = text.value(value)
        except ParameterError:  # a path with one slash looks like a fraction
            found[name.strip()] = value.strip()
    return found


def image_shape(data: Dataset) -> tuple[int, int]:
    """Channels and side of a data set's images, as the networks of this package need them: square."""
    shape = tuple(data.images.shape[1:])
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ParameterError(
            f"The networks of this package take square images (C, H, W); those of {data.name} have shape {shape}. "
            "Resize them with --resize HEIGHTxWIDTH, or bring a model of your own."
        )
    return shape[0], shape[1]


def show_table(table: Table) -> None:
    """Print a table; columns of numbers go to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title),
        title_style="bold",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for at, name in enumerate(table.columns):
        numbers = all(re.match(r"[-+]?[0-9.]+\b|$", row[at]) for row in table.rows)
        longest = max((len(word) for word in name.split()), default=0)
        shown.add_column(Text(name), justify="right" if numbers else "left", overflow="fold", min_width=longest)
    for at, row in enumerate(table.rows):
        shown.add_row(*map(Text, row), style="bold" if at in table.strong else None)
    terminal.out.print(shown)


def show(evaluation: Evaluation, tables: int | None = None) -> None:
    """Print what a study found."""
    terminal.out.print()
    for table in evaluation.tables[:tables]:
        show_table(table)
        terminal.out.print()
    for sentence in evaluation.verdict:
        terminal.sentence(sentence)


def show_findings(findings: Sequence[Finding]) -> None:
    """Every finding with what was or is to be done about it."""
    from rich.text import Text

    colours = {"invalid": "bold red", "suspect": "yellow", "note": "cyan"}
    for found in findings:
        terminal.out.print(Text(f"{found.severity:<8}", style=colours[found.severity]) + Text(found.code, style="bold"))
        terminal.sentence(found.message, mark=" " * 8)
        if found.settled:
            terminal.sentence(f"settled: {found.settled}", mark=" " * 8, style="dim")
        elif found.severity != "note":
            terminal.sentence(f"to do: {found.remedy}", mark=" " * 8, style="dim")


def grid(text: str, name: str) -> list[float]:
    """0,0.05,0.1 or FROM:TO:STEP; numbers may be fractions such as 8/255."""
    from .. import text as words

    numbers = [words.value(part) for part in text.replace(":", ",").split(",")]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise ParameterError(
            f"--{name} must be numbers such as 0,0.1,0.2 or FROM:TO:STEP such as 0:0.4:0.05. Got {text!r}."
        )
    if ":" not in text:
        return sorted({float(n) for n in numbers})
    if len(numbers) != 3 or not numbers[2] > 0 or numbers[1] < numbers[0]:
        raise ParameterError(f"--{name} as FROM:TO:STEP needs FROM ≤ TO and STEP > 0. Got {text!r}.")
    start, stop, step = numbers
    return [round(start + k * step, 10) for k in range(int((stop - start) / step + 1e-9) + 1)]
