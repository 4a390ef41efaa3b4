"""`certify` by randomized smoothing: whether the label is certified at the threat's eps, image by image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..models.classifier import Model
from ..threats import Threat
from .outcome import Certified
from .sequential import Decided, certified_at
from .smoothing import SELECTION, Sampler, Smoothing

IMAGES = 50  # at a time: their draws are counted together

Progress = Callable[[int, int], None]


def smoothed(
    model: Model,
    images: Any,
    labels: Tensor,
    threat: Threat,
    smoothing: Smoothing,
    *,
    seed: int,
    batch_size: int | None,
    ids: Tensor,
    progress: Progress,
) -> Certified:
    """Certify the labels at the threat's eps by the sequential test, and vote on the images themselves.

    The test spends no draws on choosing a class: it is told the label. `smoothing.selection` other draws vote on what the
    smoothed classifier answers on the image, for its clean accuracy; a label that is certified is right there too.
    """
    start, eps = time.perf_counter(), _radius(images[:1], threat)
    votes, decided = [], []
    for first in range(0, len(images), IMAGES):
        of = slice(first, min(first + IMAGES, len(images)))
        x, y, called = images[of], labels[of], ids[of]

        def share(passes: int, most: int, of: slice = of) -> None:
            progress(of.start + (of.stop - of.start) * passes // max(1, most), len(images))

        with Sampler(model, x, smoothing, seed, batch_size, called, None, y) as sampler:
            votes.append(sampler.counts(torch.arange(len(x)), 0, smoothing.selection, SELECTION).argmax(1))
        decided.append(
            certified_at(
                model, x, eps, smoothing, labels=y, seed=seed, batch_size=batch_size, ids=called, progress=share
            )
        )
        progress(of.stop, len(images))
    return _outcome(torch.cat(votes), decided, labels, threat, smoothing, time.perf_counter() - start)


def _outcome(
    votes: Tensor, decided: list[Decided], labels: Tensor, threat: Threat, smoothing: Smoothing, seconds: float
) -> Certified:
    certified, refuted, draws = (
        torch.cat([getattr(one, name).cpu() for one in decided]) for name in ("certified", "refuted", "draws")
    )
    return Certified(
        certified=certified,
        clean_correct=certified | (votes == labels),
        margin=torch.full((len(labels),), torch.nan, dtype=torch.float64),
        by=torch.where(certified, 0, -1),
        methods=("smoothing",),
        threat=threat,
        seconds=(seconds,),
        prediction=labels.where(certified, votes),
        radius=certified.double() * threat.eps,
        refuted=refuted,
        draws=smoothing.selection + draws,
    )


def _radius(image: Tensor, threat: Threat) -> float:
    """What no point that counts as inside is beyond, for any image in the threat's box; of an open box, for this one."""
    low, high = threat.with_mask(None).box(image)
    most = torch.maximum(low.abs(), high.abs()).amax()
    corner = torch.full_like(image, float(most)) if bool(most.isfinite()) else image
    return float(threat.with_mask(None).reach(corner).max())
