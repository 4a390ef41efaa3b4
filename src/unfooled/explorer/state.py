"""What is computed for the page of a model: one picture, one question, one answer. No Gradio here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from .. import attacks, defenses, rng
from ..attacks.base import Attack
from ..data import Dataset
from ..engine import attack, known, perturb
from ..errors import DataError, ParameterError, unknown
from ..models.access import Access, access_of
from ..models.classifier import Classifier, Model, untouched
from ..models.facts import facts_of
from ..threats import L0, THREATS, Threat
from .desk import Ticket, Watched

IMAGES = 2000  # of the data, at most, are kept to pick from
LOOKED_AT = 64  # of them, to see their range
DRAWS = 20  # passes whose mean speaks for a random model
SHORTER = {"square": "square:steps=1000", "hopskipjump": "hopskipjump:steps=2000"}  # one picture, someone waiting
BISECTIONS = 8


@dataclass(frozen=True, eq=False)
class Subject:
    """The picture that is worked on.

    image:  (C, H, W) floats in [0, 1].
    label:  its class; of an uploaded picture what the model answers on it.
    name:   what to call it.
    given:  whether the label is the data's, not the model's own answer.
    number: no other subject's.
    """

    image: Tensor
    label: int
    name: str
    given: bool = True
    number: int = field(default_factory=count().__next__)


@dataclass(frozen=True)
class Question:
    """What is asked of a picture.

    threat:   the set that the attacker may use; `Threat.eps` is the slider's.
    attack:   the name of an attack.
    target:   the class that the model shall answer; None: any wrong one.
    defense:  a defense as text, or "" for none.
    knows:    whether the attacker takes gradients through the defense.
    """

    threat: Threat
    attack: str = "fgsm"
    target: int | None = None
    defense: str = ""
    knows: bool = True

    @property
    def plan(self) -> Attack:
        """The attack."""
        found = attacks.parse(SHORTER.get(self.attack, self.attack))
        if not isinstance(found, Attack):
            raise ParameterError(f"The explorer takes a single attack, not the plan {found}.")
        return found


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a question.

    adversarial:    (C, H, W); the picture itself where eps is 0 or the model is wrong on it anyway.
    before, after:  (K,) shares of the classes, by the model that is attacked, defense included.
    right:          whether the model is right on the picture.
    fooled:         whether it is fooled, as the question means it.
    size:           how far the adversarial picture lies from the picture, in the threat's norm.
    passes:         forward and backward passes together.
    seconds:        what it took.
    """

    adversarial: Tensor
    before: Tensor
    after: Tensor
    right: bool
    fooled: bool
    size: float
    passes: int = 0
    seconds: float = 0.0


class Bench:
    """A model and the pictures to pick from. Raises `DataError` where these cannot be shown."""

    def __init__(self, model: Model, data: Dataset, name: str = "the model") -> None:
        part = data[:IMAGES]
        self.images, self.labels, self.name, self.data_name = part.floats(), part.labels, name, data.name
        shape, some = tuple(self.images.shape[1:]), self.images[:LOOKED_AT]
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise DataError(
                f"The explorer shows images of 1 or 3 channels (C, H, W); those of {data.name} are {shape}."
            )
        if not len(some) or not 0 <= float(some.min()) <= float(some.max()) <= 1:
            raise DataError(f"The explorer shows images with pixels in [0, 1]; those of {data.name} are not.")
        self.model = Watched(model)
        self.access = access_of(model)
        self._random: dict[str, bool] = {}
        classes = self.shares(self.images[:1], "", Ticket()).shape[1]
        names = data.classes or facts_of(model)[0].classes
        self.classes = tuple(names[k] if k < len(names) else str(k) for k in range(classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its pictures."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subject(self, at: int) -> Subject:
        """A picture of the data. Raises `ParameterError`."""
        if not 0 <= at < len(self.images):
            raise ParameterError(f"There is no picture {at}: they are numbered from 0 to {len(self.images) - 1}.")
        return Subject(self.images[at : at + 1][0], int(self.labels[at]), f"picture {at} of {self.data_name}")

    def brought(self, image: Tensor, ticket: Ticket) -> Subject:
        """An uploaded picture (C, H, W), labelled by what the model answers."""
        return Subject(image, int(self.shares(image[None], "", ticket).argmax()), "your picture", given=False)

    def attacks(self, norm: str) -> list[str]:
        """The names of the attacks for a norm that the model's access allows."""
        return [name for name in known(self.access) if issubclass(THREATS[norm], attacks.ATTACKS[name].norms)]

    def defended(self, defense: str) -> Model:
        """The model behind a defense."""
        return defenses.defend(self.model, defenses.parse(defense)) if defense else self.model

    def shares(self, images: Tensor, defense: str, ticket: Ticket) -> Tensor:
        """Softmax shares (N, K), of a random model the mean over draws."""
        model = self.defended(defense)
        with self.model.working(ticket), untouched(model), rng.forked(0), torch.no_grad():
            classify = Classifier(model)
            given = images.to(classify.device or images.device)
            found = classify(given).softmax(1)
            if defense not in self._random:
                self._random[defense] = not torch.equal(found, classify(given).softmax(1))
            if self._random[defense]:
                found = torch.stack([found, *(classify(given).softmax(1) for _ in range(DRAWS - 1))]).mean(0)
        return found.cpu()


def threat_of(norm: str, eps: float) -> Threat:
    """The threat of a slider; of L0 the number of pixels is whole, and all channels of a pixel count as one."""
    if norm not in THREATS:
        raise unknown("threat", norm, THREATS)
    return L0(max(1, round(eps)), pixels=True) if norm == "l0" else THREATS[norm](eps)


def scale(norm: str, shape: tuple[int, int, int]) -> tuple[float, float]:
    """The largest eps of a slider and its step: for small grey pictures as in the seed's study, for photographs less."""
    channels, height, width = shape
    most = 0.4 if channels == 1 and height * width <= 4096 else 0.1
    size = float(channels * height * width)
    if norm == "linf":
        return most, 0.005 if most > 0.1 else 0.001
    if norm == "l0":
        return float(max(8, round(height * width / 8))), 1.0
    largest = most * (size**0.5 / 2 if norm == "l2" else size / 4)
    step = 10.0 ** torch.tensor(largest / 100).log10().floor().item()
    return round(round(largest / (5 * step)) * 5 * step, 6), step


def ask(bench: Bench, subject: Subject, question: Question, ticket: Ticket, eps: float | None = None) -> Answer:
    """Attack a picture. `eps` 0 is no attack; None: the threat's. Raises `Stopped` and what `unfooled.attack` raises."""
    start = time.perf_counter()
    before = bench.shares(subject.image[None], question.defense, ticket)[0]
    right = int(before.argmax()) == subject.label
    threat = question.threat if eps is None or eps == 0 else question.threat.within(eps)
    if eps == 0 or not right:
        return Answer(subject.image, before, before, right, False, 0.0, seconds=time.perf_counter() - start)
    images, labels = subject.image[None], torch.tensor([subject.label])
    targets = None if question.target is None else torch.tensor([question.target])
    with bench.model.working(ticket):
        if question.knows or not question.defense:
            model = bench.defended(question.defense)
            found = attack(model, images, labels, threat, question.plan, targets=targets)
            points, fooled = found.adversarial, bool(found.success[0])
            passes = int(found.forward.sum() + found.backward.sum())
        else:
            points, passes = blind(bench.model, images, labels, threat, question.plan, targets)
            fooled = None
    after = bench.shares(points, question.defense, ticket)[0]
    if fooled is None:
        answer = int(after.argmax())
        fooled = answer != subject.label if question.target is None else answer == question.target
    size = float(threat.size(points.double() - images.double())[0])
    return Answer(points[0], before, after, right, fooled, size, passes, time.perf_counter() - start)


def blind(
    model: Model, images: Tensor, labels: Tensor, threat: Threat, plan: Attack, targets: Tensor | None = None
) -> tuple[Tensor, int]:
    """Adversarial images (N, C, H, W) for the model as it stands, and the passes: what an attacker makes who does not
    know of the defense. All steps are taken, since the first point that fools the one seldom fools the other."""
    if targets is None and not plan.minimal:
        device = Classifier(model).device or images.device
        with untouched(model), rng.forked(0):
            made = perturb(model, images.to(device), labels.to(device), threat, plan, ids=torch.arange(len(images)))
        return made.cpu(), 2 * plan.steps * len(images)
    found = attack(model, images, labels, threat, plan, targets=targets, early_stop=False)
    return found.adversarial, int(found.forward.sum() + found.backward.sum())


def smallest(
    bench: Bench,
    subject: Subject,
    question: Question,
    most: float,
    ticket: Ticket,
    tell: Callable[[str], None] = lambda words: None,
) -> tuple[float, Answer] | None:
    """The smallest eps up to `most` at which the attack was seen to fool, and its answer there; None: at no eps tried.

    An upper bound of the smallest there is. A minimum-norm attack is asked once; for any other, eps grows until it fools
    and the last gap is halved again and again. Raises `Stopped`.
    """
    whole = isinstance(question.threat, L0)
    if question.plan.minimal and (question.knows or not question.defense):
        tell(f"looking for the smallest change with {question.attack}")
        found = ask(bench, subject, question, ticket, torch.inf)
        return (found.size, found) if found.fooled else None
    low, best = 0.0, None
    grid = [most * 2.0**-k for k in range(9, 0, -1)] + [0.75 * most, most]
    for eps in dict.fromkeys(float(max(1, round(e))) if whole else e for e in grid):
        tell(f"trying ε = {eps:.4g}")
        found = ask(bench, subject, question, ticket, eps)
        if found.fooled:
            best = eps, found
            break
        low = eps
    for _ in range(BISECTIONS if best else 0):
        assert best is not None
        middle = (low + best[0]) / 2
        middle = float(round(middle)) if whole else middle
        if middle in (low, best[0]):
            break
        tell(f"between {low:.4g} and {best[0]:.4g}")
        found = ask(bench, subject, question, ticket, middle)
        low, best = (low, (middle, found)) if found.fooled else (middle, best)
    return best


def lesson_possible(bench: Bench) -> bool:
    """Whether the model gives the gradient that the lesson is about."""
    return bench.access is Access.GRADIENT
