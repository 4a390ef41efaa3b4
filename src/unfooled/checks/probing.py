"""Measurements of a model on a few images: does its gradient arrive, does it point anywhere, does no bound mean no escape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks import APGD, FMN, Plan, Restarts, SigmaZero
from ..engine import attack
from ..errors import UnfooledError
from ..goals import Goal
from ..losses import Loss, margin, shifted
from ..models.classifier import Classifier, Model, untouched
from ..threats import L0, L1, Linf, Threat

STEPS = (0.1, 0.25)  # of eps: the steps that show whether a gradient points anywhere
LARGEST = 0.1  # of the images' range, in every component: a step beyond it shows nothing
UNBOUNDED_STEPS = 100


@dataclass(frozen=True)
class Probe:
    """A few images that the model gets right, to measure on.

    images (N, *shape), labels (N,), threat; draws: forward passes that a mean is taken over.
    """

    images: Tensor
    labels: Tensor
    threat: Threat
    draws: int = 1

    def first(self, count: int) -> Probe:
        """Some of them."""
        return Probe(self.images[:count], self.labels[:count], self.threat, self.draws)


@dataclass(frozen=True)
class Slope:
    """Gradients (N, *shape) of a loss and the logits (N, C); or why there are none."""

    gradient: Tensor
    logits: Tensor
    failure: str = ""

    @property
    def zero(self) -> float:
        """The share of examples whose gradient is zero."""
        return float((self.gradient.flatten(1) == 0).all(1).double().mean())

    @property
    def broken(self) -> float:
        """The share of examples whose gradient is not finite."""
        return float((~torch.isfinite(self.gradient)).flatten(1).any(1).double().mean())


def slope(model: Model, probe: Probe, loss: Loss = margin) -> Slope:
    """One backward pass, whatever comes of it."""
    classifier, goal = Classifier(model), Goal(probe.labels)
    with torch.inference_mode(False), torch.enable_grad(), untouched(model):
        x = probe.images.detach().clone().requires_grad_(True)
        nothing = torch.zeros_like(probe.images)
        total: Tensor | None = None
        logits = torch.zeros(len(x), 1)
        for _ in range(probe.draws):
            try:
                answer = classifier(x)
                logits = answer.detach()
                values = loss(shifted(answer), goal)
                if not values.requires_grad:
                    return Slope(nothing, logits, "the output carries no gradient")
                gradient: Tensor | None = torch.autograd.grad(values.sum(), x, allow_unused=True)[0]
            except UnfooledError as error:
                return Slope(nothing, logits, str(error))
            except Exception as error:  # whatever a user's backward pass may raise
                reason = str(error).strip().splitlines()
                return Slope(nothing, logits, reason[0] if reason else type(error).__name__)
            if gradient is None:
                return Slope(nothing, logits, "the output does not depend on the input by autograd")
            total = gradient if total is None else total + gradient
        assert total is not None
        return Slope(total / probe.draws, logits)


def margins(model: Model, z: Tensor, labels: Tensor, draws: int = 1) -> Tensor:
    """By how much the label trails at points (N, *shape): (N,), the mean over draws."""
    classifier = Classifier(model)
    with torch.no_grad(), untouched(model):
        total = sum(margin(classifier(z), Goal(labels)) for _ in range(draws))
    assert isinstance(total, Tensor)
    return total / draws


def astray(model: Model, surrogate: Model, probe: Probe, gradient: Tensor | None = None) -> float:
    """The share of examples on which a step along the surrogate's gradient does no better than a random one.

    A step changes every component by as much, up or down. Better is better for the adversary, by the margin of `model`,
    which for a model that answers flatly is its surrogate.
    """
    if gradient is None:
        found = slope(surrogate, probe)
        if found.failure:
            return 1.0
        gradient = torch.nan_to_num(found.gradient, nan=0.0, posinf=0.0, neginf=0.0)
    x, width = probe.images, across(probe.images, probe.threat)
    eps = each(x, probe.threat)
    free = probe.threat.with_mask(None)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)
    noise, gradient = (z if probe.threat.mask is None else z * probe.threat.mask for z in (noise, gradient))
    stuck = (gradient.flatten(1) == 0).all(1)
    low, high = (_like(bound, x) for bound in free.box(x))
    lost = stuck
    for size in (min(step * eps, LARGEST * float(width.max())) for step in STEPS):
        ends = (torch.clamp(x + size * d.sign(), low, high) for d in (gradient, noise))
        along, aside = (margins(model, z, probe.labels) for z in ends)
        lost = lost | (along <= aside)
    return float(lost.double().mean())


def _like(bound: Tensor, x: Tensor) -> Tensor:
    """A flat bound in the images' shape."""
    return (bound * torch.ones_like(x).flatten(1)).view_as(x)


def each(images: Tensor, threat: Threat) -> float:
    """The change of every component at once that uses eps up; of an infinite eps, the images' range."""
    return min(threat.eps / float(threat.size(torch.ones_like(images[:1]))[0]), float(across(images, threat).max()))


def across(images: Tensor, threat: Threat) -> Tensor:
    """From one corner of the bounds to the other: (1, *shape)."""
    low, high = threat.with_mask(None).box(images[:1])
    return ((high - low) * torch.ones_like(images[:1]).flatten(1)).view_as(images[:1])


def without_bound(threat: Threat, images: Tensor) -> tuple[Threat, Plan]:
    """The whole box, as a threat that attacks by gradient can be run in, and the attack."""
    width = float(across(images, threat).max())
    if isinstance(threat, L0):
        return threat.within(torch.inf), SigmaZero(steps=UNBOUNDED_STEPS)
    if isinstance(threat, L1):
        return threat.within(torch.inf), FMN(steps=UNBOUNDED_STEPS)
    if isinstance(threat, Linf) and math.isfinite(width):
        return threat.within(width), Restarts(APGD(steps=UNBOUNDED_STEPS, loss="margin"), 2)
    return threat.within(torch.inf), FMN(steps=UNBOUNDED_STEPS)


def unbounded(model: Model, surrogate: Model, probe: Probe, seed: int) -> float:
    """The share of examples that survive an attack by gradient without a bound."""
    threat, plan = without_bound(probe.threat, probe.images)
    found = attack(
        model, probe.images, probe.labels, threat, plan, seed=seed, draws=probe.draws,
        surrogate=None if surrogate is model else surrogate,
    )  # fmt: skip
    right = int(found.clean_correct.sum())
    return int((found.clean_correct & ~found.success).sum()) / max(1, right)
