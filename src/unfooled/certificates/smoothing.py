"""Randomized smoothing: certificates for the majority answer of a model under noise, whatever the model is.

The smoothed classifier answers on x the class that the model answers most often on x + noise. If its share is above one
half, no change of x up to a radius can take the majority away. The shares are known from draws only, so each certificate
is wrong with a probability of at most alpha, over the draws. It speaks of the smoothed classifier, not of the model itself.

The noisy images are not clipped to the range of images: the proof needs the same noise round every image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import betainc
from torch import Tensor

from .. import rng
from ..engine import default_batch
from ..errors import must_be
from ..inputs import Notes, check_classes, checked_images, checked_labels
from ..intervals import clopper_pearson
from ..models.bring import brought
from ..models.classifier import Classifier, Model, untouched
from ..oracle import Oracle
from ..results import Curve
from ..threats import L2
from .noise import Gaussian, Noise, Uniform

__all__ = ["Certified", "Gaussian", "Noise", "Smoothing", "Uniform", "certified", "curve", "predicted"]

ABSTAINED = -1
SELECTION, ESTIMATE, PREDICTION = range(3)  # what a draw is for: no two purposes share any
ANYWHERE = L2(float("inf"), bounds=(-float("inf"), float("inf")))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Smoothing:
    """How a model is smoothed, and how sure its certificates are.

    noise:      `Gaussian(sigma)` for L2, `Uniform(half_width)` for L1, best the noise that the model was trained with.
    selection:  draws that choose the class to certify; none of them counts in its estimate. Cohen et al. 2019, section 4.
    draws:      draws that estimate its share; where a radius is given, at most so many. Cohen et al. 2019, section 4.
    alpha:      the probability that a certificate is wrong, for each image, a float in (0, 0.25]. The same section.
    """

    noise: Noise
    selection: int = 100
    draws: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise):
            raise must_be("Smoothing", "noise", "a Noise such as Gaussian(0.25)", self.noise)
        checked_count("Smoothing", "selection", self.selection)
        checked_count("Smoothing", "draws", self.draws)
        given: object = self.alpha
        if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) <= 0.25:
            raise must_be("Smoothing", "alpha", "a float in (0, 0.25], such as 0.001", self.alpha)


@dataclass(frozen=True, repr=False)
class Certified:
    """Certificates of the smoothed classifier, one row per image.

    prediction:  (N,) int64 the class that is certified; -1 where it abstains.
    p_low:       (N,) float64 lower bound of the share of noise on which the model answers the class that was selected.
    radius:      (N,) float64 no change of at most this size, in the norm of the noise, changes the answer; 0: it abstains.
    smoothing:   what it was made with.
    """

    prediction: Tensor
    p_low: Tensor
    radius: Tensor
    smoothing: Smoothing

    def __repr__(self) -> str:
        held = self.prediction != ABSTAINED
        middle = float(self.radius[held].median()) if bool(held.any()) else 0.0
        return (
            f"Certified({len(held)} images by {self.smoothing.noise}: {int((~held).sum())} abstained, median radius of "
            f"the others {middle:.4g})"
        )


def certified(
    model: Model,
    images: Any,
    smoothing: Smoothing,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Any = None,
    progress: Progress | None = None,
) -> Certified:
    """Certify the smoothed classifier on images; see `Certified` for what comes back.

    model:       an nn.Module or a callable from images to logits; it is run in eval mode and left as it was found.
    images:      (N, *shape) finite floats, in the units of the noise.
    seed:        of the noise, an int >= 0. It must not be chosen by what comes out.
    batch_size:  noisy images in work at a time; None: by the size of an image.
    ids:         (N,) integers that the noise belongs to and that errors name; None: a hash of each image.
    progress:    called after each batch with the passes made and the most there can be.

    Each image costs selection + draws forward passes. The lower bound is Clopper and Pearson's, one-sided.

    Source: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, CERTIFY.
    Raises `DataError`, `ParameterError`, or `ModelError`, also where logits are not finite, naming the image.
    """
    with Sampler(model, images, smoothing, seed, batch_size, ids, progress) as sampler:
        everything = torch.arange(len(sampler))
        sampler.most = len(everything) * (smoothing.selection + smoothing.draws)
        chosen = sampler.counts(everything, 0, smoothing.selection, SELECTION).argmax(1)
        counts = sampler.counts(everything, 0, smoothing.draws, ESTIMATE)
    hits = counts.gather(1, chosen[:, None]).squeeze(1)
    low = torch.tensor([lower_bound(k, smoothing.draws, smoothing.alpha) for k in hits.tolist()], dtype=torch.float64)
    sure = low > 0.5
    radius = torch.where(sure, torch.from_numpy(smoothing.noise.radius(low.clamp(min=0.5).numpy())), 0.0)
    where = sampler.images.device
    return Certified(torch.where(sure, chosen, ABSTAINED).to(where), low.to(where), radius.to(where), smoothing)


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """A bound that lies at or above the true share with probability alpha at most. Clopper & Pearson 1934."""
    return clopper_pearson(hits, draws, 1 - 2 * alpha).low


def predicted(
    model: Model,
    images: Any,
    smoothing: Smoothing,
    draws: int = 1000,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Any = None,
    progress: Progress | None = None,
) -> Tensor:
    """What the smoothed classifier answers: (N,) int64, -1 where it abstains.

    An answer is not the smoothed classifier's with probability alpha at most: the two classes with most of the draws are
    compared by a two-sided binomial test. `draws` is the forward passes for each image; the rest is as in `certified`.

    Source: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, PREDICT; Hung & Fithian 2019 (the test of the leader).
    Raises as `certified` does.
    """
    checked_count("predicted", "draws", draws)
    with Sampler(model, images, smoothing, seed, batch_size, ids, progress) as sampler:
        everything = torch.arange(len(sampler))
        sampler.most = len(everything) * draws
        counts = sampler.counts(everything, 0, draws, PREDICTION)
    most, order = counts.topk(2, dim=1)
    first, second = most.double().numpy().T
    p_value = np.minimum(1, 2 * betainc(first, second + 1, 0.5))  # the share of coins with so few tails
    return torch.where(torch.from_numpy(p_value <= smoothing.alpha), order[:, 0], ABSTAINED).to(sampler.images.device)


def curve(radius: Any, correct: Any, at: Sequence[float], label: str = "randomized smoothing") -> Curve:
    """Certified accuracy against the radius: the share of images that are right and certified at least so far.

    radius:   (N,) certified radii.
    correct:  (N,) bools: the class that is certified is the label; false where it abstained.
    at:       the radii to tell it at; at 0 it is the share that is right and not abstained.

    The intervals are Clopper and Pearson's at 95 %, for the choice of images.
    """
    size = torch.as_tensor(radius, dtype=torch.float64).cpu()
    right = torch.as_tensor(correct).cpu()
    if size.dim() != 1 or size.shape != right.shape or right.dtype != torch.bool:
        raise must_be("curve", "correct", f"(N,) bools, one for each radius of {tuple(size.shape)}", tuple(right.shape))
    shares = [clopper_pearson(int((right & (size >= r)).sum()), len(size)) for r in at]
    return Curve(label=label, x=[float(r) for r in at], y=shares)


class Sampler:
    """Counts what a model answers on noisy images. A context: within it the model is in eval mode, generators are forked.

    The noise of a draw depends on (image, seed, purpose, number of the draw) alone.

    passes, most:  forward passes made, and the most that there can be.
    """

    def __init__(
        self,
        model: Model,
        images: Any,
        smoothing: Smoothing,
        seed: int,
        batch_size: int | None,
        ids: Any,
        progress: Progress | None,
        labels: Any = None,
    ) -> None:
        if not isinstance(smoothing, Smoothing):
            raise must_be("smoothing", "smoothing", "a Smoothing such as Smoothing(Gaussian(0.25))", smoothing)
        checked_count("smoothing", "seed", seed, least=0)
        if batch_size is not None:
            checked_count("smoothing", "batch_size", batch_size)
        model = brought(model)
        victim = Classifier(model)
        self.images = checked_images(images, ANYWHERE, victim.dtype, Notes())
        count = len(self.images)
        called = torch.arange(count) if ids is None else checked_labels(ids, count, "ids", least=None).cpu()
        self.labels = None if labels is None else checked_labels(labels, count).cpu()
        self.ids = (
            called if ids is not None else rng.image_ids(self.images, torch.zeros(count, dtype=torch.int64)).cpu()
        )
        self.device = victim.device or self.images.device
        self.batch = batch_size or default_batch(self.images[0].numel(), self.device)
        self.oracle = Oracle(victim, None, called, first=self._first)
        self.noise, self.seed, self.progress = smoothing.noise, seed, progress
        self.passes = self.most = 0
        self._within = ExitStack()

    def __len__(self) -> int:
        return len(self.images)

    def __enter__(self) -> Sampler:
        with ExitStack() as stack:
            for context in (torch.inference_mode(False), untouched(self.oracle.victim.model), rng.forked(self.seed)):
                stack.enter_context(context)
            self._within = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._within.__exit__(*error)

    def _first(self, logits: Tensor) -> None:
        if self.labels is not None:
            check_classes(self.labels, logits.shape[1], self.oracle.called)

    def counts(self, examples: Tensor, first: int, last: int, purpose: int) -> Tensor:
        """How often each class is the answer on draws `first` up to `last` of some images: (M,) to (M, C) int64.

        The draws of all images are one row, cut into batches.
        """
        each, counts = last - first, torch.empty(0)
        whole = len(examples) * each
        for start in range(0, whole, self.batch):
            flat = torch.arange(start, min(start + self.batch, whole))
            row, draw = flat // each, first + flat % each
            logits = self.oracle.answer(self._noisy(examples[row], draw, purpose), examples[row])
            classes = logits.shape[1]
            if not len(counts):
                counts = torch.zeros(len(examples) * classes, dtype=torch.int64)
            counts.index_add_(0, row * classes + logits.argmax(1).cpu(), torch.ones_like(row))
            self.passes += len(flat)
            if self.progress is not None:
                self.progress(self.passes, self.most)
        return counts.view(len(examples), -1)

    def _noisy(self, example: Tensor, draw: Tensor, purpose: int) -> Tensor:
        """Images with noise, summed in float64 and rounded once, to what the model sees: (R,), (R,) to (R, *shape)."""
        x = self.images[example.to(self.images.device)].to(self.device)
        key = rng.keys(self.ids[example], self.seed, purpose, draw).to(self.device)
        return (x.double() + self.noise.draw(key, x.shape[1:])).to(self.oracle.victim.dtype or x.dtype)


def checked_count(owner: str, name: str, given: object, least: int = 1) -> None:
    """Raise `ParameterError` unless it is an int of at least so much."""
    if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < least:
        raise must_be(owner, name, f"an int of at least {least}", given)
