"""What a step of training minimises: functions from a batch to a loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ..attacks.base import Attack
from ..engine import perturb
from ..models.classifier import untouched
from ..threats import Threat

Objective = Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(model, images, labels, seed of this step) to (loss, logits that the running accuracy is taken from)."""


def standard(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the images."""
    logits = model(images)
    return F.cross_entropy(logits, labels), logits


def adversarial(threat: Threat, attack: Attack) -> Objective:
    """Cross-entropy on the attack's images. Madry et al. 2018, arXiv:1706.06083, equation 2.1.

    The attack sees the model in eval mode (no dropout, frozen batch norm), the step of the weights sees it in train mode.
    """

    def objective(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with untouched(model):
            images = perturb(model, images, labels, threat, attack, seed=seed)
        return standard(model, images, labels, seed)

    return objective
