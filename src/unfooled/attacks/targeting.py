"""Which wrong classes to aim at, and in what order."""

from __future__ import annotations

import torch
from torch import Tensor

from ..oracle import Oracle
from ..threats import Threat

MOST = 100  # classes whose gradients are looked at; Melamed et al. 2024, section 4


def by_logits(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The wrong classes by falling logit: (N, C), (N,) to (N, count), or fewer where there are no more."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def by_malt(
    oracle: Oracle, threat: Threat, images: Tensor, labels: Tensor, example: Tensor, logits: Tensor, count: int
) -> Tensor:
    """The wrong classes by the distance to their boundary in the model linearised at the image: (N, count).

    (z_y - z_t) / |∇(z_t - z_y)|, in the dual norm of the threat's, among the 100 largest logits. Melamed et al. 2024,
    arXiv:2407.02240 (MALT). One forward pass, and one backward pass for each of these classes and for the label's.
    """
    nearest = by_logits(logits, labels, MOST)
    gradients, logits = oracle.jacobian(images, torch.cat([labels[:, None], nearest], 1), example)
    own, others = gradients[:, :1], gradients[:, 1:]
    gap = logits.gather(1, labels[:, None]) - logits.gather(1, nearest)
    slope = threat.dual((others - own).flatten(0, 1)).view_as(gap)
    distance = gap / (slope + torch.finfo(gap.dtype).tiny)
    order = distance.argsort(dim=1, stable=True)
    return nearest.gather(1, order[:, :count])
