"""Gradients from scores alone, for models through which none can be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks.probing import each
from ..models.classifier import Classifier, Model, counting
from ..threats import Threat

DRAWS = 24  # pairs of points for each gradient
SIZE = 0.5  # of eps: how far they lie from the image
BLOCK = 2  # height and width of neighbours that share a sign


@dataclass(frozen=True)
class Estimated:
    """A model whose backward is estimated: the mean slope along random signs.

    Ilyas et al. 2018, arXiv:1804.08598, with signs that neighbours share, as they share the gradient's.

    threat:  its eps is the scale of the steps, its bounds hold.
    """

    model: Model
    threat: Threat
    draws: int = DRAWS
    name: str = "gradients estimated from scores"

    @property
    def passes(self) -> tuple[int, int]:
        """A gradient takes two forward passes of the model for each pair of points."""
        return 1, 2 * self.draws

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        logits: Tensor = _Estimate.apply(images, self)  # type: ignore[no-untyped-call]
        return logits

    def slope(self, x: Tensor, weights: Tensor) -> Tensor:
        """The gradient (N, *shape) at points of the logits' sum with these weights (N, C)."""
        classifier, total = Classifier(self.model), torch.zeros_like(x)
        low, high = ((bound * torch.ones_like(x).flatten(1)).view_as(x) for bound in self.threat.with_mask(None).box(x))
        size = SIZE * each(x, self.threat)
        for _ in range(self.draws):
            signs = _signs(x)
            ahead, behind = (classifier(torch.clamp(x + step * signs, low, high)) for step in (size, -size))
            change = ((ahead - behind) * weights).sum(1)
            total += signs * change.view(-1, *[1] * (x.dim() - 1))
        return total / (2 * size * self.draws)


class _Estimate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, way: Estimated) -> Tensor:
        ctx.save_for_backward(images)
        ctx.way = way
        with counting(None):
            return Classifier(way.model)(images).detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        with torch.no_grad(), counting(None):
            return ctx.way.slope(*ctx.saved_tensors, grads[0]), None


def _signs(x: Tensor) -> Tensor:
    """Random signs (N, *shape); in images those of one block agree, wherever the first block begins."""
    if x.dim() < 4:
        return torch.randint(0, 2, x.shape, device=x.device).to(x.dtype) * 2 - 1
    height, width = x.shape[-2:]
    coarse = torch.randint(0, 2, (*x.shape[:-2], height // BLOCK + 2, width // BLOCK + 2), device=x.device)
    top, left = torch.randint(0, BLOCK, (2,)).tolist()
    fine = coarse.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return fine[..., top : top + height, left : left + width].to(x.dtype) * 2 - 1
