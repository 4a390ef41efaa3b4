"""Accuracy against eps: one attack at one eps after the other, or one minimum-norm attack for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import attacks
from .attacks.base import Plan
from .engine import attack
from .errors import must_be
from .inputs import Notes, checked_images, checked_labels
from .intervals import clopper_pearson
from .judging import judge
from .models.classifier import Model
from .results import Estimate
from .threats import Threat


@dataclass(frozen=True)
class Sweep:
    """Accuracy against eps, by the smallest eps of the grid at which each image was fooled.

    eps:            the grid, rising; it may begin with 0, the clean accuracy.
    fooled_at:      (N,) float64, the smallest eps that fooled, of a minimum-norm attack the size of its change; 0 where the
                    model was wrong anyway; inf where none did.
    adversarial:    (N, *shape) the point found there; the image itself elsewhere.
    clean_correct:  (N,) right on the image.
    forward, backward:  passes, of all images together.
    """

    threat: Threat
    eps: tuple[float, ...]
    fooled_at: Tensor
    adversarial: Tensor
    clean_correct: Tensor
    forward: int
    backward: int

    def accuracy(self, eps: float) -> Estimate:
        """The share right on the image and not fooled at eps or below; it can only fall with eps."""
        right = self.clean_correct & (self.fooled_at > eps)
        return clopper_pearson(int(right.sum()), len(right))

    def accuracies(self) -> list[Estimate]:
        """One for each eps of the grid."""
        return [self.accuracy(eps) for eps in self.eps]


def sweep(
    model: Model,
    images: Any,
    labels: Any,
    threat: Threat | str,
    eps: Sequence[float],
    method: Plan | str,
    *,
    after: Sweep | None = None,
    **options: Any,
) -> Sweep:
    """Attack at one eps after the other, each time only what is not fooled yet: a point counts at every larger eps.

    A minimum-norm attack runs once: the smallest change that it finds says what holds at every eps.

    threat:   norm, box and mask; its own eps does not matter.
    after:    an earlier sweep of the same images, whose points count here too.
    options:  those of `unfooled.attack`.
    """
    grid = tuple(sorted({float(e) for e in eps}))
    if not grid or not all(0 <= e < torch.inf for e in grid):
        raise must_be("sweep", "eps", "finite floats of at least 0", list(eps))
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    images = checked_images(images, threat, None, Notes())
    labels = checked_labels(labels, len(images))
    each = {name: torch.as_tensor(options.pop(name)) for name in ("targets", "ids") if options.get(name) is not None}
    fooled_at = torch.full((len(images),), torch.inf, dtype=torch.float64)
    adversarial, forward, backward = images.clone(), 0, 0
    correct = torch.zeros(len(images), dtype=torch.bool)
    if after is not None:
        fooled_at, adversarial, correct = (
            after.fooled_at.clone(),
            after.adversarial.clone(),
            after.clean_correct.clone(),
        )
        forward, backward = after.forward, after.backward
    plan = attacks.parse(method) if isinstance(method, str) else method
    minimal = all(stage.attack.minimal for stage in plan.stages())
    for at, radius in enumerate([torch.inf] if minimal and grid != (0.0,) else [e for e in grid if e > 0]):
        open_ = ((fooled_at > radius) | fooled_at.isinf()).nonzero().squeeze(1)
        if not len(open_):
            break
        rows: dict[str, Any] = {name: value[open_] for name, value in each.items()}
        found = attack(model, images[open_], labels[open_], threat.within(radius), plan, **options, **rows)
        forward += int(found.forward.sum())
        backward += int(found.backward.sum())
        if at == 0 and after is None:
            correct = found.clean_correct.clone()
            fooled_at[~correct] = 0.0
        won = open_[found.success]
        fooled_at[won] = found.distance[found.success] if minimal else radius
        adversarial[won] = found.adversarial[found.success]
    if grid == (0.0,):
        answers = judge(model, images, labels)
        correct, forward = answers.clean_correct, len(images)
    return Sweep(threat, grid, fooled_at, adversarial, correct, forward, backward)
