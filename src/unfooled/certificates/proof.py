"""`certify`, and the bounds behind it: `bounded` and `margins`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.given import given
from ..errors import ModelError, NotFinite, must_be
from ..inputs import Notes, check_classes, checked_labels, prepared
from ..models.bring import brought
from ..models.classifier import Classifier, Model, untouched
from ..threats import Threat
from .asked import asked
from .bounds import DOUBLE, SINGLE, Bounds, interval
from .graph import Traced
from .methods import Method, bounds, parse
from .outcome import Certified
from .reach import Reach
from .smoothed import smoothed
from .smoothing import Smoothing

BATCH = 100  # images at a time


@dataclass(frozen=True)
class Span:
    """Bounds on the logits over the threat's set round each image: lower and upper, (N, classes) float64."""

    lower: Tensor
    upper: Tensor


def certify(
    model: Model,
    data: Any,
    threat: Threat | str,
    method: str | Method | Smoothing | Sequence[str | Method] = "auto",
    *,
    batch_size: int | None = None,
    seed: int = 0,
    ids: Any = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Certified:
    """Prove, where that can be proved, that no point of the threat's set changes the model's answer.

    data:    (images, labels), a `Dataset`, or the name of one.
    method:  "ibp", "crown", "alpha-crown", or several of them ("ibp,crown"), each on what those before it left open; "auto":
             all three; or "smoothing:sigma=0.25" (with draws, selection, alpha), for L2 and L1 and any model.
    batch_size:  images at a time; by smoothing, noisy images.
    seed:    of smoothing's noise. It must not be chosen by what comes out.
    ids:     (N,) integers that errors name and that smoothing's noise belongs to; None: 0, 1, 2 …
    progress:  called with the images done and all of them, after each batch.

    What bounds prove holds for the model as it computes in float32 (or float64), for every point that counts as inside when
    attacks are confirmed. What smoothing certifies holds for the smoothed classifier, not for the model; see `Certified`.
    Raises `ModelError` for a model that has operations without bounds, `ParameterError`, `DataError`.
    """
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    wanted = asked(method, threat)
    source = given(data)
    victim = Classifier(brought(model)) if isinstance(wanted, Smoothing) else _victim(model)
    images = prepared(source.images, threat, victim.dtype, Notes())
    labels = checked_labels(source.labels, len(images)).cpu()
    called = torch.arange(len(images)) if ids is None else checked_labels(ids, len(images), "ids", least=None).cpu()
    if isinstance(wanted, Smoothing):
        return smoothed(
            victim.model,
            images,
            labels,
            threat,
            wanted,
            seed=seed,
            batch_size=batch_size,
            ids=called,
            progress=progress,
        )
    size, parts, seconds = _size(batch_size), [], [0.0] * len(wanted)
    with torch.inference_mode(False), torch.no_grad(), untouched(victim.model):
        for start in range(0, len(images), size):
            of = slice(start, min(start + size, len(images)))
            parts.append(_certified(Problem(victim, images[of], threat, called[of]), labels[of], wanted, seconds))
            progress(of.stop, len(images))
    certified, right, margin, by, answer = (torch.cat(column) for column in zip(*parts, strict=True))
    names = tuple(one.name for one in wanted)
    return Certified(certified, right, margin, by, names, threat, tuple(seconds), answer)


def bounded(
    model: Model, images: Any, threat: Threat, method: str | Method = "crown", batch_size: int | None = None
) -> Span:
    """Bounds on the logits of images (N, *shape) over the threat's set, for the model as it computes."""

    def rows(of: slice, classes: int) -> Tensor:
        eye = torch.eye(classes, dtype=torch.float64)
        return torch.cat([eye, -eye]).expand(of.stop - of.start, -1, -1)

    found = _least(model, images, threat, method, rows, batch_size)
    half = found.shape[1] // 2
    return Span(found[:, :half], -found[:, half:])


def margins(
    model: Model,
    images: Any,
    labels: Any,
    threat: Threat,
    method: str | Method = "crown",
    batch_size: int | None = None,
) -> Tensor:
    """Lower bounds (N, classes) of the label's logit less each other one, over the threat's set; inf at the label.

    Where all are above 0 the model, as it computes, is right on the whole set.
    """
    known = checked_labels(labels, len(images)).cpu()

    def rows(of: slice, classes: int) -> Tensor:
        check_classes(known[of], classes, torch.arange(of.start, of.stop))
        return _differences(known[of], classes)

    found = _least(model, images, threat, method, rows, batch_size)
    return found.scatter(1, known[:, None], torch.inf)


def _least(
    model: Model,
    images: Any,
    threat: Threat,
    method: str | Method,
    rows: Callable[[slice, int], Tensor],
    batch_size: int | None,
) -> Tensor:
    """Lower bounds of the linear functions that `rows` gives for a slice of the images and a number of classes."""
    one = parse(method) if isinstance(method, str) else method
    victim = _victim(model)
    points, size = prepared(images, threat, victim.dtype, Notes()), _size(batch_size)
    found = []
    with torch.inference_mode(False), torch.no_grad(), untouched(victim.model):
        for start in range(0, len(points), size):
            of = slice(start, min(start + size, len(points)))
            problem = Problem(victim, points[of], threat, torch.arange(of.start, of.stop))
            found.append(problem.least(one, rows(of, problem.logits.shape[1])))
    return torch.cat(found)


def _victim(model: Model) -> Classifier:
    """The model, if bounds can be computed for it."""
    victim = Classifier(brought(model))
    if victim.dtype not in (None, torch.float32, torch.float64):
        raise ModelError(f"Bounds are for models in float32 or float64. Got {victim.dtype}: certify model.float().")
    if victim.device is not None and victim.device.type != "cpu":
        raise ModelError(f"Bounds are computed on the processor. The model is on {victim.device}: give model.cpu().")
    return victim


def _certified(problem: Problem, labels: Tensor, methods: Sequence[Method], seconds: list[float]) -> tuple[Tensor, ...]:
    """Columns of `Certified` for a batch; what each method takes is added to `seconds`."""
    check_classes(labels, problem.logits.shape[1], problem.called)
    answer = problem.logits.argmax(1).cpu()
    right = answer == labels
    margin = torch.full((len(labels),), -torch.inf, dtype=torch.float64)
    by = torch.full((len(labels),), -1)
    rows = _differences(labels, problem.logits.shape[1])
    for number, method in enumerate(methods):
        open_ = (right & (margin <= 0)).nonzero().squeeze(1)
        if not len(open_):
            break
        began = time.perf_counter()
        problem.leave(open_)
        least = problem.least(method, rows[open_]).scatter(1, labels[open_, None], torch.inf).amin(1)
        margin[open_] = torch.maximum(margin[open_], least)
        by[open_[least > 0]] = number
        seconds[number] += time.perf_counter() - began
    return right & (margin > 0), right, margin, by, answer


class Problem:
    """A batch of images with the network and the set round each: what the methods work on.

    called:  (N,) what errors call the images.
    """

    def __init__(self, victim: Classifier, images: Tensor, threat: Threat, called: Tensor) -> None:
        self.victim, self.images, self.threat, self.called = victim, images, threat, called
        self.network = Traced(victim.model, images[0]).network()
        self.reach = Reach.of(images, threat)
        self.unit = DOUBLE if victim.dtype == torch.float64 else SINGLE
        self.logits = self._answers()
        self.open = torch.arange(len(images))
        self.known: dict[bool, Bounds] = {}

    def _answers(self) -> Tensor:
        """The victim's logits, if the network that was traced gives the same ones."""
        theirs = self.victim(self.images).double()
        if not bool(theirs.isfinite().all()):
            bad = self.called[(~theirs.isfinite()).any(1).cpu()].tolist()
            raise NotFinite(f"The model's logits are not finite on {len(bad)} images, such as {bad[0]}.", tuple(bad))
        ours = self.network.values(self.images.double())[-1]
        alone = interval(self.network, Reach.point(self.images, self.threat), self.unit)
        low, high = alone.low[-1], alone.high[-1]
        one = self.victim(self.images[:1]).double()  # which tells where images of a batch change places
        same = theirs.shape == ours.shape and bool(((theirs >= low) & (theirs <= high)).all())
        if not same or not bool(((one >= low[:1]) & (one <= high[:1])).all()):
            raise ModelError(
                "The model answers otherwise than its traced operations do, so no bound covers it. It may depend on "
                "the other images of a batch, on a state that it keeps, or on the number of images."
            )
        return theirs

    def leave(self, open_: Tensor) -> None:
        """Go on with these of the images only, (M,) of all; what is known of them stays known."""
        among = torch.searchsorted(self.open, open_)
        self.known = {linear: found.only(among) for linear, found in self.known.items()}
        self.reach, self.open = self.reach.only(among), open_

    def least(self, method: Method, rows: Tensor) -> Tensor:
        """Lower bounds of linear functions of the victim's own logits (n, rows, classes): (n, rows)."""
        if method.linear not in self.known:
            self.known[method.linear] = bounds(method.linear, self.network, self.reach, self.unit)
        return method.least(self.known[method.linear], rows)


def _differences(labels: Tensor, classes: int) -> Tensor:
    """Rows e_label - e_k for every class k: (N, classes, classes)."""
    eye = torch.eye(classes, dtype=torch.float64)
    return eye[labels][:, None] - eye


def _size(batch_size: int | None) -> int:
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise must_be("certify", "batch_size", "an int of at least 1", batch_size)
    return batch_size or BATCH
