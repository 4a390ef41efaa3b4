"""`unfooled train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import text
from ..errors import ParameterError, unknown
from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from ..training import Progress, Recipe, Trained


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="Training data: [b]fashion-mnist[/], a folder, an .npz file …", autocompletion=complete("data")
        ),
    ],
    out: Annotated[Path, typer.Option(help="The weights file to write (safetensors, float16).")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A network, or file.py:factory; by default the recipe's.", autocompletion=complete("networks")
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="A recipe; see [b]unfooled list recipes[/].", autocompletion=complete("recipes"))
    ] = "standard",
    threat: Annotated[
        str | None,
        typer.Option(help="What the inner attack may do; by default the recipe's.", autocompletion=complete("threats")),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other part of the recipe: average=0.999, awp=0.01; repeatable."
        ),
    ] = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    class_indices: shared.Classes = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the first accelerator.")
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, same, channels-last.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Let torch.compile make the passes.")] = False,
    autocast: Annotated[bool, typer.Option("--autocast", help="bfloat16 where torch holds that safe.")] = False,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Train a model, normally or against an attack, and write its weights.

    Checkpoints, TensorBoard logs and curves.png go to a folder beside the weights; the same command goes on with a run
    that was stopped.
    """
    from .. import data as datasets
    from ..models import Compute, build, load, save_weights
    from ..models.load import NETWORKS
    from ..rng import forked
    from ..threats import Threat
    from ..training import train as fit

    chosen = _recipe(recipe, settings or [], epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    allowed = Threat.parse(threat or chosen.threat)
    if out.suffix != ".safetensors" or out.is_dir():
        raise ParameterError(f"--out must be a file name ending in .safetensors. Got {str(out)!r}.")
    terminal.writable(out.resolve().parent)
    splits = {case.name for case in datasets.cases() if "train" in case.counts}
    found = shared.load_data(f"{data}:train" if data in splits else data, resize, crop, class_indices)
    classes = len(found.classes) or int(found.labels.max()) + 1
    called = model or chosen.network
    with forked(seed):
        network = build(called, *shared.image_shape(found), classes) if called in NETWORKS else load(called)
    about = {
        "data": found.name,
        "model": called,
        "recipe": recipe,
        "settings": str(chosen),
        "threat": str(allowed) if chosen.attack else "none",
        "seed": str(seed),
    }
    folder = out.with_name(out.stem + ".training")
    with terminal.notes_shown(), terminal.progress() as bars:
        task = bars.add_task("training", total=None, note="")

        def show(at: Progress) -> None:
            note = f"epoch {at.epoch}/{chosen.epochs}  loss {at.loss:.3f}  accuracy {at.accuracy:.3f}"
            if at.held is not None:
                note += f"  held out {_held(at.held.clean, at.held.robust)}"
            bars.update(task, total=at.steps, completed=at.step, note=note)

        done = fit(
            network.to(_device(device)), found, allowed, chosen, seed=seed, out=folder,
            compute=Compute(layout, compile_, autocast)  # type: ignore[arg-type]  # it says what may be, progress=show,
        )  # fmt: skip
    best = done.history[done.chosen - 1]
    about |= {"epoch": f"{done.chosen} of {chosen.epochs}", "held_out": _held(best.clean, best.robust)}
    save_weights(done.model.cpu(), out, about)
    _curves(done, folder, f"{called} on {found.name}, recipe {recipe}")
    if json:
        told = {"weights": str(out), "history": [dataclasses.asdict(entry) for entry in done.history]}
        terminal.print_json(told | {"chosen": done.chosen, "ended": done.ended} | about)
        return
    if done.ended:
        terminal.sentence(done.ended, "! ", "yellow")
    terminal.out.print(f"wrote {out}: epoch {done.chosen}, on images held out {_held(best.clean, best.robust)}")


def _recipe(name: str, settings: list[str], **given: Any) -> Recipe:
    """A recipe with parts of it replaced."""
    from ..training import RECIPES

    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    names = [field.name for field in dataclasses.fields(RECIPES[name])]
    options = {key: value for key, value in given.items() if value is not None}
    for setting in settings:
        key, equals, word = setting.partition("=")
        if not equals:
            raise ParameterError(f"--set takes NAME=VALUE, such as average=0.999. Got {setting!r}.")
        if key not in names:
            raise unknown("part of a recipe", key, names)
        options[key] = (
            word if key in ("objective", "attack", "augment", "threat") and word != "none" else text.value(word)
        )
    return dataclasses.replace(RECIPES[name], **options)


def _device(name: str | None) -> Any:
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(f"There is no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device


def _held(clean: float, robust: float) -> str:
    """Accuracies on the images held out, as far as there are any."""
    parts = [f"{name} {value:.3f}" for name, value in (("clean", clean), ("robust", robust)) if value == value]
    return ", ".join(parts) or "none"


def _curves(done: Trained, folder: Path, title: str) -> None:
    from ..report.curves import draw_training

    draw_training(done.history, done.chosen, done.held_out, title, folder / "curves.png")
