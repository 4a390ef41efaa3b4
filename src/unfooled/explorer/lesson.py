"""FGSM on one picture: what does not depend on eps, what does, and the sentences for both.

    x' = x + eps · sign(∇x J(θ, x, y))        Goodfellow et al. 2015, arXiv:1412.6572, section 4

The result is clipped to [0, 1], as the engine's FGSM does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .. import rng
from ..models.classifier import Classifier, untouched
from .desk import Ticket
from .state import Bench, Subject

PLACES = 41  # of eps at which the way is looked at beforehand
LARGE = 64 * 64  # pixels from which on fewer are
VISIBLE = 0.12  # of the range: from here on most people see the pattern on a small picture


@dataclass(frozen=True, eq=False)
class Lesson:
    """Everything about FGSM on one picture that does not depend on eps.

    sign:    (C, H, W) of -1, 0 and 1: the gradient's sign.
    noise:   (C, H, W) of -1 and 1, drawn at random: what the lesson compares with.
    loss:    J on the picture.
    slope:   the gradient's L1 norm: by how much J rises for each unit of eps, to the first order.
    eps:     (G,) a grid from 0 to the largest eps; shares (G, K) what the model answers along it.
    """

    subject: Subject
    sign: Tensor
    noise: Tensor
    loss: float
    slope: float
    eps: Tensor
    shares: Tensor

    @property
    def right(self) -> bool:
        """Whether the model is right on the picture."""
        return int(self.shares[0].argmax()) == self.subject.label

    @property
    def first(self) -> float | None:
        """The smallest eps of the grid at which the model is wrong; None: at none."""
        wrong = (self.shares.argmax(1) != self.subject.label).nonzero()
        return float(self.eps[int(wrong[0])]) if len(wrong) else None

    @property
    def flat(self) -> bool:
        """Whether the gradient is zero everywhere."""
        return not bool(self.sign.any())


@dataclass(frozen=True, eq=False)
class Seen:
    """The lesson at one eps: the adversarial picture, what the model answers, J, and the answer to random signs."""

    eps: float
    adversarial: Tensor
    after: Tensor
    loss: float
    random: Tensor


def begin(bench: Bench, subject: Subject, most: float, ticket: Ticket) -> Lesson:
    """Take the gradient once, and look along its sign up to eps `most`. Raises `Stopped`, `ModelError`."""
    label = torch.tensor([subject.label])
    with bench.model.working(ticket), untouched(bench.model), rng.forked(0), torch.inference_mode(False):
        classify = Classifier(bench.model)
        x = subject.image[None].to(classify.device or "cpu").clone().requires_grad_()
        with torch.enable_grad():
            loss = cross_entropy(classify(x), label.to(x.device))
            (gradient,) = torch.autograd.grad(loss, x)
    sign = gradient[0].sign().cpu()
    eps = torch.linspace(0, most, PLACES if subject.image[0].numel() <= LARGE else PLACES // 4 + 1)
    way = (subject.image + eps.view(-1, 1, 1, 1) * sign).clamp(0, 1)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2, sign.shape, generator=draw).to(sign.dtype) * 2 - 1
    shares = bench.shares(way, "", ticket)
    return Lesson(subject, sign, noise, float(loss.detach()), float(gradient.abs().sum()), eps, shares)


def look(bench: Bench, lesson: Lesson, eps: float, ticket: Ticket) -> Seen:
    """The lesson at one eps: one pass over two pictures. Raises `Stopped`."""
    image = lesson.subject.image
    both = torch.stack([image + eps * lesson.sign, image + eps * lesson.noise]).clamp(0, 1)
    shares = bench.shares(both, "", ticket)
    loss = -float(shares[0, lesson.subject.label].double().clamp_min(1e-30).log())
    return Seen(eps, both[0], shares[0], loss, shares[1])


# --- in words --------------------------------------------------------------------------------------


def sentences(lesson: Lesson, seen: Seen, classes: tuple[str, ...]) -> list[str]:
    """Two or three sentences on what is seen, the first of them the news."""
    label = lesson.subject.label
    name, before = classes[label], float(lesson.shares[0, label])
    if not lesson.right:
        says = classes[int(lesson.shares[0].argmax())]
        return [
            f"The model is wrong already: it says {says}, and the picture is labelled {name}.",
            "Nothing needs to be added. Pick another picture.",
        ]
    if lesson.flat:
        return [
            "The gradient is zero at every pixel, so its sign is, too: the formula adds nothing.",
            "That is no safety. The model is so sure that its loss has rounded to zero, or something in it hides the "
            "gradient. Other attacks find a way: see Explore.",
        ]
    if seen.eps == 0:
        return [
            f"At ε = 0 nothing is added. The model says {name}, with {percent(before)}.",
            "Move ε to the right, slowly, and watch the picture on the right, and the bars.",
        ]
    answer = int(seen.after.argmax())
    first = _news(lesson, seen, classes, answer, before)
    return [first, _why(lesson, seen), _random(lesson, seen, classes, answer)]


def _news(lesson: Lesson, seen: Seen, classes: tuple[str, ...], answer: int, before: float) -> str:
    label, name = lesson.subject.label, classes[lesson.subject.label]
    share = percent(float(seen.after[answer]))
    if answer != label:
        eye = "to the eye it is the same picture" if seen.eps < VISIBLE else "the eye sees noise, but no other thing"
        return f"Fooled: the model now says {classes[answer]}, with {share}; {eye}."
    held = f"Still {name}, with {share} where it was {percent(before)}."
    if lesson.first is None:
        return f"{held} One step of this formula does not fool the model on this picture."
    if seen.eps > lesson.first:
        return f"{held} A smaller ε did fool it: one straight step can go too far. Iterated attacks turn on the way."
    return f"{held} Go on: it gives way at ε ≈ {lesson.first:.3g}."


def _why(lesson: Lesson, seen: Seen) -> str:
    return (
        f"No pixel moved by more than {seen.eps:.3g} ({255 * seen.eps:.0f} of 255 levels), but all of them moved the way "
        f"that hurts: the loss J went from {number(lesson.loss)} to {number(seen.loss)}; the straight line of its "
        f"gradient foretold {number(lesson.loss + seen.eps * lesson.slope)}."
    )


def _random(lesson: Lesson, seen: Seen, classes: tuple[str, ...], answer: int) -> str:
    says = int(seen.random.argmax())
    said = f"{classes[says]}, with {percent(float(seen.random[says]))}"
    if says == lesson.subject.label and answer != lesson.subject.label:
        return f"The same ε with signs drawn at random: still {said}. It is the direction that fools, not the amount."
    if says == lesson.subject.label:
        return f"The same ε with signs drawn at random: {said}."
    return f"The same ε with signs drawn at random also breaks it: {said}. So much noise needs no attacker."


def percent(share: float) -> str:
    """A share as people write it; certainty is never rounded up to 100 %."""
    value = 100 * share
    if 99.95 <= value < 100:
        return "over 99.9\N{NO-BREAK SPACE}%"
    return f"{value:.1f}\N{NO-BREAK SPACE}%"


def number(value: float) -> str:
    """A loss with the digits that matter."""
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
