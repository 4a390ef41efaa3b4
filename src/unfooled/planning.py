"""What a protocol would cost, before it is run."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from .attacks import Plan
from .data.lazy import Rows
from .engine import default_batch
from .goals import Goal
from .losses import margin
from .models.access import Access
from .models.classifier import Classifier, Model, untouched
from .results import AttackCost
from .threats import Threat

TURNS = 3  # timed passes


def planned(model: Model, images: Rows, labels: Tensor, threat: Threat, plan: Plan) -> list[AttackCost]:
    """For each stage the forward and backward passes of one image at most, and the seconds that all images take then.

    By the time of a few passes of a batch here. Images that fall early, or that the model gets wrong, cost less;
    adaptation and escalation cost more.
    """
    forward, backward = _seconds(model, images, labels)
    found = []
    for stage in plan.stages():
        looks = stage.attack.steps * stage.trials
        back = looks if stage.attack.access == Access.GRADIENT else 0
        seconds = len(images) * (looks * forward + back * backward)
        found.append(
            AttackCost(
                attack=str(stage) + (" (if called for)" if stage.needs else ""), examples=len(images), fooled=0,
                forward=looks, backward=back, seconds=seconds,
            )
        )  # fmt: skip
    return found


def _seconds(model: Model, images: Rows, labels: Tensor) -> tuple[float, float]:
    """Of a forward and of a backward pass, for one image, in a batch as the attacks use."""
    classifier = Classifier(model)
    device = classifier.device or torch.device("cpu")
    x = images[: default_batch(math.prod(images.shape[1:]), device)].to(device)
    y = labels[: len(x)].to(device)
    times: list[tuple[float, float]] = []
    with torch.inference_mode(False), untouched(model):
        for _ in range(TURNS):
            start = time.perf_counter()
            with torch.no_grad():
                float(classifier(x).sum())
            middle = time.perf_counter()
            with torch.enable_grad():
                z = x.clone().requires_grad_(True)
                logits = classifier(z)
                if logits.requires_grad:
                    torch.autograd.grad(margin(logits, Goal(y)).sum(), z, allow_unused=True)
            times.append((middle - start, max(0.0, time.perf_counter() - middle - (middle - start))))
    forward, backward = (sorted(values)[TURNS // 2] for values in zip(*times, strict=True))
    return forward / len(x), backward / len(x)
