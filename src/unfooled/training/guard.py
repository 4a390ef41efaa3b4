"""What a run is judged by while it goes on: images that it never trains on, and never test images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import PGD
from ..engine import attack
from ..judging import judge
from ..models.classifier import untouched
from ..threats import L0, Threat
from .boxes import Boxes
from .certified import boxes_of

BATCH = 128  # images at a time
FALL = 0.2  # of robust accuracy below the best: catastrophic overfitting (Wong et al. 2020, section 5.4)


Judge = Callable[[nn.Module, Tensor, Tensor, Threat], tuple[float, float]]
"""Clean accuracy of a model on images and labels, and that within a threat."""


def under_attack(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> tuple[float, float]:
    """By PGD with 10 steps."""
    result = attack(model, images, labels, threat, PGD(steps=10, step_size=0.25))
    return float(result.clean_accuracy), float(result.robust_accuracy)


def by_intervals(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> tuple[float, float]:
    """By what boxes leave possible, in float32: as certified training sees it."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    right = torch.zeros(2)
    with untouched(model), torch.no_grad():
        for some, known in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            x, y = some.to(device), known.to(device)
            seen: Boxes = model(boxes_of(x, threat, x))
            worst = (-seen.margins(y)).scatter(1, y[:, None], -torch.inf).amax(1)
            right += torch.stack([(seen.value.argmax(1) == y).sum(), (worst < 0).sum()]).cpu()
    clean, certified = (right / len(labels)).tolist()
    return clean, certified


@dataclass(frozen=True)
class Held:
    """Images and labels that were set aside.

    threat:  None where nothing attacks.
    judge:   how accuracy within the threat is found.
    """

    images: Tensor
    labels: Tensor
    threat: Threat | None
    judge: Judge = under_attack

    @property
    def guarded(self) -> bool:
        """Whether a sudden fall means that the model has learned to fool the attack that it is trained with."""
        return self.threat is not None and self.judge is under_attack

    def judged(self, model: nn.Module) -> tuple[float, float]:
        """Clean accuracy, and that within the threat; NaN where nothing is to tell."""
        if not len(self.labels):
            return math.nan, math.nan
        if self.threat is None or isinstance(self.threat, L0):
            return float(judge(model, self.images, self.labels).clean_correct.double().mean()), math.nan
        return self.judge(model, self.images, self.labels, self.threat)


def apart(count: int, wanted: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which images are trained on and which are set aside, a tenth at most: drawn evenly by the seed."""
    held = min(wanted, count // 10)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:].sort().values, order[:held].sort().values


def fallen(best: float, now: float) -> bool:
    """Whether robust accuracy has collapsed, be it at once or over some epochs."""
    return best - now > FALL
