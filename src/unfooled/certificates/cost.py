"""Which methods of "auto" do not take too long on a model."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..models.classifier import Model
from ..threats import Threat
from .asked import CASCADE
from .methods import Method
from .proof import margins

SLOW = 2.0  # seconds of processor time an image: dearer methods are left out


def affordable(model: Model, images: Tensor, threat: Threat) -> tuple[int, str]:
    """How many of `CASCADE` do not take longer than `SLOW` an image, tried twice, and what is to be said of the others.

    Intervals always count. Raises `ModelError`, `ParameterError` where there are no bounds for the model or threat.
    """
    for number, method in enumerate(CASCADE):
        seconds = min(_taken(model, images, threat, method) for _ in range(2 if number else 1)) / len(images)
        if number and seconds > SLOW:
            left = " and ".join(one.name for one in CASCADE[number:])
            return number, f"{left} would take {seconds:.0f} s an image or more: not tried. Ask for them by name."
    return len(CASCADE), ""


def _taken(model: Model, images: Tensor, threat: Threat, method: Method) -> float:
    start = time.process_time()
    margins(model, images, torch.zeros(len(images), dtype=torch.int64), threat, method)
    return time.process_time() - start
