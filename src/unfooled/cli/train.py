"""`unfooled train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError, unknown
from . import shared, terminal

if TYPE_CHECKING:
    from ..training import Progress


def train(
    data: Annotated[str, typer.Argument(help="Training data: [b]fashion-mnist[/], a folder, an .npz file …")],
    out: Annotated[Path, typer.Option(help="The weights file to write (safetensors, float16).")],
    model: Annotated[str, typer.Option(help="A network, or file.py:factory.")] = "seed-cnn",
    recipe: Annotated[str, typer.Option(help="A recipe; see [b]unfooled list recipes[/].")] = "standard",
    threat: Annotated[str, typer.Option(help="What the inner attack may do.")] = "linf:0.1",
    epochs: Annotated[int | None, typer.Option(help="Passes over the data, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    augment: Annotated[bool | None, typer.Option(help="Random shifts and mirroring.")] = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    class_indices: shared.Classes = None,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Train a model, normally or against an attack, and write its weights, after each epoch."""
    from .. import data as datasets
    from ..judging import judge
    from ..models import build, load, load_weights, save_weights
    from ..models.load import NETWORKS
    from ..rng import forked
    from ..threats import Threat
    from ..training import RECIPES
    from ..training import train as fit

    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    options: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "augment": augment,
    }
    chosen = replace(RECIPES[recipe], **{k: v for k, v in options.items() if v is not None})
    allowed = Threat.parse(threat)
    if out.suffix != ".safetensors" or out.is_dir():
        raise ParameterError(f"--out must be a file name ending in .safetensors. Got {str(out)!r}.")
    terminal.writable(out.resolve().parent)
    splits = {case.name for case in datasets.cases() if "train" in case.counts}
    found = shared.load_data(f"{data}:train" if data in splits else data, resize, crop, class_indices)
    images, labels = found.whole(), found.labels
    classes = len(found.classes) or int(labels.max()) + 1
    with forked(seed):
        network = build(model, *shared.image_shape(found), classes) if model in NETWORKS else load(model)
    about = {
        "data": found.name,
        "model": model,
        "recipe": recipe,
        "settings": str(chosen),
        "threat": str(allowed) if chosen.attack else "none",
        "seed": str(seed),
    }
    with terminal.notes_shown(), terminal.progress() as bars:
        task = bars.add_task("training", total=None, note="")

        def show(at: Progress) -> None:
            note = f"epoch {at.epoch}/{chosen.epochs}  loss {at.loss:.3f}  accuracy {at.accuracy:.3f}"
            bars.update(task, total=at.steps, completed=at.step, note=note)
            if at.step % (at.steps // chosen.epochs) == 0:
                save_weights(network, out, about | {"epochs": f"{at.epoch} of {chosen.epochs}"})

        fit(network, images, labels, chosen, allowed, seed=seed, progress=show)
    save_weights(network, out, about)
    right = judge(load_weights(network, out), images, labels).clean_correct
    accuracy = float(right.double().mean())
    if json:
        terminal.print_json({"weights": str(out), "training_accuracy": accuracy, **about})
    else:
        terminal.out.print(f"wrote {out}: accuracy {accuracy:.4f} on {found.name}, its training images")
