"""`train`: what it is given, checked, and the run that follows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import rng
from .._version import __version__
from ..data.given import given
from ..errors import ParameterError, must_be, unknown
from ..fingerprint import of_data, state_hash
from ..inputs import Notes, checked_labels, prepared
from ..models import Compute
from ..models.classifier import Classifier
from ..store import RunFolder
from ..threats import Linf, Threat
from . import devices, perturbations
from .guard import Held, apart, by_intervals, under_attack
from .history import Progress
from .initial import STARTS
from .objectives import CERTIFIED
from .recipes import RECIPES, Recipe
from .run import Run, Trained


def train(
    model: nn.Module,
    data: Any,
    threat: Threat | str | None = None,
    recipe: str | Recipe = "standard",
    *,
    seed: int = 0,
    out: str | Path | None = None,
    compute: Compute | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train a model in place by a recipe.

    data:      (images, labels), a `Dataset`, a torch or Hugging Face data set, or the name of one such as
               "fashion-mnist:train". Part of it is set aside, and never trained on, to choose the best epoch and to notice
               catastrophic overfitting; the seed says which.
    threat:    what the inner attack may do, e.g. Linf(0.1); needed by recipes with an attack.
    recipe:    the name of one (`RECIPES`), or a `Recipe`.
    seed:      of order, augmentation, noise, dropout and inner attacks: each step's numbers are its own.
    out:       a folder for checkpoints: the same call goes on where it was stopped, to the same weights (on CPUs to the bit,
               with as many threads).
    compute:   layout, compilation and autocast of all passes. Layout "auto" is channels-last for images (N, C, H, W).
    progress:  called after each step.

    Started by `accelerate launch` or `torchrun`, each process takes its part of every batch.

    Raises `DataError`, `ParameterError`, `OutputError`; `ModelError` when the loss is not finite, which names the batch and
    the last good checkpoint. The caller's random generators are left as they were.
    """
    if not isinstance(model, nn.Module):
        raise must_be("train", "model", "an nn.Module", type(model).__name__)
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise unknown("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    _check(recipe, threat)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise must_be("train", "seed", "an int of at least 0", seed)
    if compute is not None and not isinstance(compute, Compute):
        raise must_be("train", "compute", "a Compute such as Compute(layout='same')", compute)
    source = given(data)
    images = prepared(source.images, threat or Linf(1.0), Classifier(model).dtype, Notes())
    labels = checked_labels(source.labels, len(images)).cpu()
    if recipe.augment and len(images.shape) != 4:
        raise ParameterError(f"Augmentation needs images (N, C, H, W). Got shape {tuple(images.shape)}.")
    kept, held = apart(len(images), recipe.held_out, seed)
    where = devices.found(model)
    with ExitStack() as stack:
        folder = None if out is None else RunFolder(out)
        if folder is not None and where.main:
            asked = {
                "kind": "training", "model": state_hash(model), "data": source.name,
                "data_hash": of_data(images, labels, torch.arange(len(images))), "threat": str(threat),
                "recipe": str(recipe), "seed": seed, "compute": str(compute or Compute()), "unfooled": __version__,
            }  # fmt: skip
            stack.enter_context(folder.running(asked))
        stack.enter_context(rng.forked(seed))
        STARTS[recipe.start](model)
        run = Run(model, images, labels, kept, recipe, threat, seed, where, compute or Compute(), folder, progress)
        certified = recipe.objective.partition(":")[0] in CERTIFIED
        within = threat if recipe.attack or certified else None
        judge = by_intervals if certified else under_attack
        return run.to_its_end(Held(images[held], labels[held], within, judge))


def _check(recipe: Recipe, threat: Threat | None) -> None:
    if recipe.attack is None:
        return
    inner = perturbations.parse(recipe.attack)
    if threat is None:
        raise ParameterError("A recipe with an inner attack needs a threat, such as linf:0.1.")
    if not isinstance(threat, inner.norms):
        norms = ", ".join(norm.__name__ for norm in inner.norms)
        raise ParameterError(f"{inner.name} works for {norms}, not for {type(threat).__name__}.")
