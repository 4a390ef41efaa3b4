"""Accuracy against eps on a sample of the data, computed piece by piece, so that whoever moves a slider seldom waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..attacks.base import Attack
from ..errors import ParameterError
from ..intervals import clopper_pearson
from ..judging import judge
from ..models.access import Access
from ..results import Estimate
from ..sweeping import Sweep, sweep
from ..threats import L0
from .desk import Ticket
from .state import Bench, Question, blind

SAMPLE = 200  # images, of an attack of few steps
PIECE = 25  # images that are attacked at one eps without looking up
LOOKS = 2000  # images times steps at one eps, at most
STEPS = {True: 20, False: 100}  # of an attack, at most, with gradients and without: a companion, not an evaluation


@dataclass(frozen=True)
class Points:
    """A curve, or what there is of it.

    eps:       the grid, from 0.
    accuracy:  at each eps, on the images so far.
    attack:    the attack with its options.
    whole:     whether all images of the sample are in it.
    """

    eps: tuple[float, ...]
    accuracy: tuple[Estimate, ...]
    attack: str
    whole: bool

    @property
    def images(self) -> int:
        """How many images it stands on."""
        return self.accuracy[0].n


def grid(question: Question, most: float) -> tuple[float, ...]:
    """The places of a curve: from 0 to `most`, closer where it begins."""
    if isinstance(question.threat, L0):
        return tuple(sorted({0.0, *(float(max(1, round(most * (k / 10) ** 2))) for k in range(1, 11))}))
    return tuple(round(most * (k / 12) ** 1.5, 6) for k in range(13))


def companion(question: Question) -> Question:
    """The question as it is asked of a sample: no target, since pictures of the target's own class have none."""
    return replace(question, target=None)


def shortened(plan: Attack) -> Attack:
    """An attack with no more steps than a curve can afford."""
    most = STEPS[plan.access is Access.GRADIENT]
    if plan.steps <= most:
        return plan
    try:
        return replace(plan, steps=most)  # type: ignore[type-var]  # all attacks are dataclasses
    except (TypeError, ParameterError):  # its steps cannot be chosen, or not so few
        return plan


def curve(bench: Bench, question: Question, most: float, ticket: Ticket) -> Iterator[Points]:
    """The curve again and again, each time on more images. Raises `Stopped`."""
    places, plan = grid(question, most), shortened(question.plan)
    count = min(len(bench.images), SAMPLE, max(PIECE, LOOKS // plan.steps))
    fooled_at = torch.zeros(0, dtype=torch.float64)
    for part in torch.randperm(len(bench.images), generator=torch.Generator().manual_seed(0))[:count].split(PIECE):
        images, labels = bench.images[part], bench.labels[part]
        work = _knowing if question.knows or not question.defense else _not_knowing
        fooled_at = torch.cat([fooled_at, work(bench, question, plan, images, labels, places, ticket)])
        right = [clopper_pearson(int((fooled_at > eps).sum()), len(fooled_at)) for eps in places]
        yield Points(places, tuple(right), str(plan), len(fooled_at) == count)


def _knowing(
    bench: Bench, question: Question, plan: Attack, images: Tensor, labels: Tensor, places: tuple[float, ...],
    ticket: Ticket,
) -> Tensor:  # fmt: skip
    """The smallest eps of the grid at which each image is fooled (N,): 0 where the model is wrong anyway, inf if at none."""
    model, found = bench.defended(question.defense), None
    several = [places] if plan.minimal else [(eps,) for eps in places[1:]]
    for some in several:
        with bench.model.working(ticket):
            found = sweep(model, images, labels, question.threat, some, plan, after=found)
    assert isinstance(found, Sweep)
    return torch.where(found.clean_correct, found.fooled_at, 0.0)


def _not_knowing(
    bench: Bench, question: Question, plan: Attack, images: Tensor, labels: Tensor, places: tuple[float, ...],
    ticket: Ticket,
) -> Tensor:  # fmt: skip
    """The same for points that were made for the model without its defense."""
    model = bench.defended(question.defense)
    with bench.model.working(ticket):
        right = judge(model, images, labels).clean_correct
    fooled_at = torch.where(right, torch.inf, 0.0).double()
    for eps in places[1:]:
        with bench.model.working(ticket):
            points, _ = blind(bench.model, images, labels, question.threat.within(eps), plan)
            right = judge(model, points, labels).clean_correct
        fooled_at = torch.where(right | (fooled_at < eps), fooled_at, eps)
    return fooled_at
