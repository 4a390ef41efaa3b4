"""Measurements made of attacks: of a model by a protocol, of accuracy against eps, and of given points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import attacks, protocols, rng
from . import data as datasets
from .attacks.base import Plan
from .data import Dataset
from .engine import Result, attack, default_batch
from .environment import environment, now
from .errors import DataError, must_be
from .goals import Goal
from .inputs import Notes, checked_images, checked_labels
from .models.classifier import Classifier, Model, untouched
from .models.layout import Compute
from .oracle import Oracle
from .pool import Progress
from .results import AttackCost, Bracket, Cost, Estimate, Evaluation, Example, Table, percent, share
from .threats import Threat


def evaluate(
    model: Model,
    data: str | Dataset | tuple[Any, Any],
    threat: Threat | str,
    protocol: str | Plan = "fast",
    *,
    seed: int = 0,
    batch_size: int | None = None,
    budget: int | None = None,
    draws: int = 1,
    surrogate: Model | None = None,
    compute: Compute | None = None,
    ids: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Clean and robust accuracy of a model under a protocol, with what became of every example.

    model:     an nn.Module or a callable from images to logits (N, classes).
    data:      (images, labels), a `Dataset`, or the name of one such as "mnist:test[0:1000]".
    threat:    the set the adversary may use, e.g. `Linf(8/255)` or "linf:8/255".
    protocol:  quick, fast, standard or thorough; or any plan of attacks.
    budget:    passes per image at most, over the whole protocol.

    The other options are those of `unfooled.attack`. Robust accuracy under attack is an upper bound of the truth.
    """
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    plan = protocol if isinstance(protocol, Plan) else protocols.named(protocol, threat)
    name = "the plan given" if isinstance(protocol, Plan) else protocol
    images, labels, source = _images_of(data)
    result = attack(
        model, images, labels, threat, plan, seed=seed, batch_size=batch_size, budget=budget, draws=draws,
        surrogate=surrogate, compute=compute, ids=ids, progress=progress,
    )  # fmt: skip
    given = range(len(result.success)) if ids is None else torch.as_tensor(ids).tolist()
    settings = {"data": source, "threat": str(threat), "protocol": name, "plan": str(plan), "seed": str(seed)}
    return _evaluation(result, name, torch.as_tensor(labels), list(given), settings)


def _images_of(data: str | Dataset | tuple[Any, Any]) -> tuple[Any, Any, str]:
    if isinstance(data, str):
        data = datasets.load(data)
    if isinstance(data, Dataset):
        return data.floats(), data.labels, data.name
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1], f"{len(data[1])} images given"
    raise DataError(
        f"'data' must be (images, labels), a Dataset or a name such as 'mnist:test'. Got {type(data).__name__} instead."
    )


def _evaluation(result: Result, protocol: str, labels: Tensor, ids: list[int], settings: dict[str, str]) -> Evaluation:
    n = len(result.success)
    clean = share(int(result.clean_correct.sum()), n)
    attacked = share(int((result.clean_correct & ~result.success).sum()), n)
    verdict = (
        f"The model gets {percent(clean)} of {n} images right, and {percent(attacked)} under {protocol} with "
        f"{result.threat}. That is an upper bound of its robust accuracy: a stronger attack may find more."
    )
    if protocol == "quick":
        verdict += " The protocol quick is for development: its number is never a verdict."
    passes = result.forward.sum() + result.backward.sum()
    summary = [
        ["clean accuracy", percent(clean, interval=True)],
        ["robust accuracy (attacked)", percent(attacked, interval=True)],
        ["passes per image", f"{int(passes) / n:.0f}"],
        ["seconds", f"{sum(part.seconds for part in result.parts):.1f}"],
    ]
    return Evaluation(
        kind="evaluation",
        title=f"{protocol.capitalize()} evaluation with {result.threat}",
        verdict=[verdict],
        settings=settings,
        command="",
        environment=environment(),
        created=now(),
        tables=[
            Table(id="summary", title="Result", columns=["measure", "value"], rows=summary, strong=[1]),
            _by_attack(result.parts),
        ],
        cost=[Cost(part=c.attack, forward=c.forward, backward=c.backward, seconds=c.seconds) for c in result.parts],
        notes=list(result.notes),
        clean_accuracy=clean,
        robust_accuracy=Bracket(attacked=attacked),
        attacks=list(result.parts),
        examples=_examples(result, labels, ids),
    )


def _by_attack(costs: Sequence[AttackCost]) -> Table:
    rows = [
        [
            c.attack,
            str(c.examples),
            str(c.fooled),
            f"{(c.forward + c.backward) / max(c.examples, 1):.0f}",
            f"{c.seconds:.1f}",
        ]
        for c in costs
    ]
    return Table(
        id="attacks", title="By attack", columns=["attack", "images", "fooled", "passes each", "seconds"], rows=rows
    )


def _examples(result: Result, labels: Tensor, ids: list[int]) -> list[Example]:
    columns = (
        ids,
        labels.tolist(),
        result.clean_prediction.tolist(),
        result.fooled_by.tolist(),
        result.distance.tolist(),
    )
    return [
        Example(
            index=index, label=int(label), clean_prediction=prediction,
            fooled_by=None if by < 0 else result.parts[by].attack,
            distance=None if distance == torch.inf else distance,
        )
        for index, label, prediction, by, distance in zip(*columns, strict=True)
    ]  # fmt: skip


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
        return share(int(right.sum()), len(right))

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


@dataclass(frozen=True)
class Judgement:
    """What a model says of images: right on them, the class it answers, and its softmax share of that class."""

    clean_correct: Tensor
    prediction: Tensor
    confidence: Tensor


def judge(model: Model, images: Tensor, labels: Tensor, seed: int = 0) -> Judgement:
    """Classify images (N, *shape); a random model by the majority of draws. No attack."""
    victim = Classifier(model)
    device = victim.device or images.device
    oracle = Oracle(victim, None, torch.arange(len(images)))
    right, prediction, confidence = [], [], []
    with torch.inference_mode(False), untouched(model), rng.forked(seed):
        for index in torch.arange(len(images)).split(default_batch(images[0].numel(), device)):
            x, goal = images[index].to(device), Goal(labels[index].to(device))
            logits = oracle.answer(x, index)
            wrong = oracle.confirm(x, goal, index) if oracle.random else goal.fooled(logits)
            best = logits.softmax(1).max(1)
            right.append(~wrong.cpu())
            prediction.append(best.indices.cpu())
            confidence.append(best.values.cpu())
    return Judgement(torch.cat(right), torch.cat(prediction), torch.cat(confidence))
