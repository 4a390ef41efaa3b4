"""What a run is judged by while it goes on: images that it never trains on, and never test images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import PGD
from ..engine import attack
from ..judging import judge
from ..threats import L0, Threat

FALL = 0.2  # of robust accuracy below the best: catastrophic overfitting (Wong et al. 2020, section 5.4)


@dataclass(frozen=True)
class Held:
    """Images and labels that were set aside. threat: None where nothing attacks."""

    images: Tensor
    labels: Tensor
    threat: Threat | None

    def judged(self, model: nn.Module) -> tuple[float, float]:
        """Clean accuracy, and that under PGD with 10 steps; NaN where there is nothing to tell."""
        if not len(self.labels):
            return math.nan, math.nan
        if self.threat is None or isinstance(self.threat, L0):
            return float(judge(model, self.images, self.labels).clean_correct.double().mean()), math.nan
        result = attack(model, self.images, self.labels, self.threat, PGD(steps=10, step_size=0.25))
        return float(result.clean_accuracy), float(result.robust_accuracy)


def apart(count: int, wanted: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which images are trained on and which are set aside, a tenth at most: drawn evenly by the seed."""
    held = min(wanted, count // 10)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:].sort().values, order[:held].sort().values


def fallen(best: float, now: float) -> bool:
    """Whether robust accuracy has collapsed, be it at once or over some epochs."""
    return best - now > FALL
