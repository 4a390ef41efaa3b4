"""The one training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attacks.base import Attack
from ..errors import DataError, ModelError, ParameterError
from ..inputs import Notes, checked_images, checked_labels
from ..rng import forked
from ..threats import Linf, Threat
from .objectives import Objective, adversarial, standard
from .recipes import Recipe


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: 1-based epoch, steps done of all, running loss and accuracy of the epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    threat: Threat | None = None,
    *,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> nn.Module:
    """Train a model in place by a recipe, and return it in eval mode.

    images:  (N, *shape) floats inside the threat's bounds;  labels: (N,).
    threat:  what the inner attack may do; needed by recipes with an attack.

    A loss that is not finite stops the run with `ModelError`. The caller's random generators are left as they were.
    """
    notes = Notes()
    images = checked_images(images, threat or Linf(1.0), None, notes)
    labels = checked_labels(labels, len(images))
    if not len(images):
        raise DataError("There are no images to train on.")
    inner = recipe.inner()
    if inner is not None and threat is None:
        raise ParameterError("A recipe with an inner attack needs a threat, such as linf:0.1.")
    if inner is not None and not isinstance(threat, inner.norms):
        norms = ", ".join(norm.__name__ for norm in inner.norms)
        raise ParameterError(f"{inner.name} works for {norms}, not for {type(threat).__name__}.")
    if recipe.augment and images.dim() != 4:
        raise ParameterError(f"Augmentation needs images (N, C, H, W). Got shape {tuple(images.shape)}.")
    with forked(seed):
        _fit(model, images, labels, recipe, _objectives(recipe, inner, threat), seed, progress)
    return model.eval()


def _objectives(recipe: Recipe, inner: Attack | None, threat: Threat | None) -> Callable[[float], Objective]:
    """The objective at a share (above 0, up to 1) of the run: eps grows over the warm-up."""
    if inner is None or threat is None:
        return lambda share: standard

    def at(share: float) -> Objective:
        grown = min(1.0, share / recipe.warm_up) if recipe.warm_up else 1.0
        return adversarial(threat.within(threat.eps * grown), inner)

    return at


def _fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    objective: Callable[[float], Objective],
    seed: int,
    progress: Callable[[Progress], None],
) -> None:
    steps = math.ceil(len(images) / recipe.batch_size) * recipe.epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps + 1)
    order = torch.Generator().manual_seed(seed)
    step = 0
    for epoch in range(recipe.epochs):
        model.train()
        loss_sum = right = seen = 0.0
        for index in torch.randperm(len(images), generator=order).split(recipe.batch_size):
            x, y = images[index], labels[index]
            if recipe.augment:
                x = _augmented(x, order)
            loss, logits = objective((step + 1) / steps)(model, x, y, seed * steps + step)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ModelError(
                    f"The loss became {value} at step {step + 1} of {steps} (epoch {epoch + 1}). "
                    "Train with a smaller learning rate."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            loss_sum += value * len(x)
            right += float((logits.argmax(1) == y).sum())
            seen += len(x)
            progress(Progress(epoch + 1, step, steps, loss_sum / seen, right / seen))


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 pixels (the edge is repeated) and mirrored by chance."""
    n, _, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4), mode="replicate")
    top, left = torch.randint(0, 9, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand((n, 1), generator=generator) < 0.5, columns, columns.flip(1))
    at = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
