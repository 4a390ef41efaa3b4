"""One step's images, and how an objective asks the model about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import rng
from ..attacks.base import Attack
from ..engine import perturb
from ..errors import ModelError, ParameterError
from ..goals import Goal
from ..losses import Loss
from ..models.classifier import Model, logits_of, untouched
from ..threats import Threat
from .boxes import Boxes

Scored = tuple[Tensor, Tensor]
"""(the mean loss of the batch, the logits that its running accuracy is taken from)"""
Objective = Callable[["Batch"], Callable[[], Scored]]


@dataclass(frozen=True)
class Batch:
    """One step's images and how to ask the model about them.

    model:      the model in train mode, through which the gradient of the weights is taken.
    bare:       the same weights for the inner attack; not the wrapped model that averages gradients over devices.
    images:     (B, *shape);  goal: their labels;  ids: (B,) what the random numbers of each image are made from.
    threat:     what the inner attack may do at this moment;  attack: the inner attack. None: neither.
    seed:       of this step.
    smoothing:  share of the label that goes to all classes alike. Szegedy et al. 2016, arXiv:1512.00567, section 7.
    warm:       how far eps has come on its way to its full size: in (0, 1].
    """

    model: Callable[[Tensor], Any]
    bare: nn.Module
    images: Tensor
    goal: Goal
    ids: Tensor
    seed: int
    threat: Threat | None = None
    attack: Attack | None = None
    smoothing: float = 0.0
    warm: float = 1.0

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, C) in train mode, in float32 at least."""
        logits = logits_of(self.model(images), len(images))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def boxed(self, boxes: Boxes) -> Boxes:
        """What the model makes of boxes in train mode: boxes of logits (B, C)."""
        seen = self.model(replace(boxes, bent=[]))  # type: ignore[arg-type]  # a pass of its own
        if not isinstance(seen, Boxes) or seen.value.ndim != 2:
            raise ModelError("Certified training needs a model that gives logits (N, classes) by operations of torch.")
        return seen

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """The mean cross-entropy to the (smoothed) labels."""
        return F.cross_entropy(logits, self.goal.label, label_smoothing=self.smoothing)

    def quiet(self) -> Tensor:
        """Logits of the images themselves in eval mode, without a gradient."""
        with untouched(self.bare), torch.no_grad():
            return logits_of(self.bare(self.images), len(self.images)).float()

    def attacked(self, loss: Loss | None = None, model: Model | None = None, threat: Threat | None = None) -> Tensor:
        """The attack's points, the model in eval mode: no dropout, batch norm by its averages.

        loss:   what the attack maximises, instead of the loss that it names.
        model:  what it looks at, instead of the model.
        threat: what it may do, instead of the batch's.
        """
        if self.attack is None or self.threat is None:
            raise ParameterError(
                "This objective needs an inner attack and a threat, such as pgd:steps=10 and linf:0.1."
            )
        with untouched(self.bare):
            return perturb(
                model or self.bare, self.images, self.goal.label, threat or self.threat, self.attack,
                seed=self.seed, ids=self.ids, loss=loss,
            )  # fmt: skip

    def noise(self, sigma: float, draw: int = 0) -> Tensor:
        """Gaussian noise for each image, its own in each step and draw."""
        key = rng.keys(self.ids, self.seed, draw, 0x6E)
        return sigma * rng.normal(key, self.images.shape[1:], self.images.dtype)
