"""Objectives of certified training: the loss at the worst point that bounds allow, or between that and an attack's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ParameterError
from ..threats import Linf, Threat
from . import backward
from .batch import Batch, Scored
from .boxes import Boxes

TOLERANCE = 0.5  # of the regularisers, τ in Shi et al. 2021, appendix C


def ibp(batch: Batch, stretch: float = 1.0, natural: float = 0.0, steady: float = 0.5) -> Callable[[], Scored]:
    """κ · CE(f(x)) + (1 - κ) · CE at the worst logits that intervals allow. Gowal et al. 2018, arXiv:1810.12715, equation 12.

    stretch:  the eps of the bounds as a multiple of the threat's: bounds of more than what is judged help (section 4.1).
    natural:  κ at full eps; it falls from 1 with it. 0, as Shi et al. 2021, arXiv:2103.17268.
    steady:   weight of the regularisers of Shi et al. (section 3.4) while eps grows. 0.5, theirs.
    """
    boxes = around(batch, _threat(batch, "ibp", stretch))

    def loss() -> Scored:
        seen = batch.boxed(boxes)
        worst = -seen.margins(batch.goal.label)
        share = 1 - (1 - natural) * batch.warm
        clean = share * batch.cross_entropy(seen.value) if share else 0.0
        return clean + (1 - share) * batch.cross_entropy(worst) + regularised(batch, boxes, seen, steady), worst

    return loss


def crown_ibp(
    batch: Batch, linear: float = 0.0, stretch: float = 1.0, natural: float = 0.0, steady: float = 0.5
) -> Callable[[], Scored]:
    """As `ibp`, with margins β · CROWN + (1 - β) · IBP. Zhang et al. 2020, arXiv:1906.06316, equation 10.

    linear:  β at full eps; it falls from 1 with it. 0, theirs: CROWN only shows the way while eps grows.
    stretch, natural, steady:  as for `ibp`.
    """
    boxes = around(batch, _threat(batch, "crown-ibp", stretch))

    def loss() -> Scored:
        seen = batch.boxed(boxes)
        beta, share = 1 - (1 - linear) * batch.warm, 1 - (1 - natural) * batch.warm
        least = seen.margins(batch.goal.label)
        if beta:
            least = beta * backward.margins(seen, batch.goal.label) + (1 - beta) * least
        clean = share * batch.cross_entropy(seen.value) if share else 0.0
        return clean + (1 - share) * batch.cross_entropy(-least) + regularised(batch, boxes, seen, steady), -least

    return loss


def sabr(batch: Batch, share: float = 0.6, stretch: float = 1.0, steady: float = 0.5) -> Callable[[], Scored]:
    """CE at the worst logits of a small box round a point that fools the model. Müller et al. 2023, arXiv:2210.04871.

    Their section 3. The attack searches so far from the image that the small box, too, is inside the set.

    share:    radius of the small box as a share of eps. 0.6: theirs for MNIST at 0.3 (0.1 for 0.1).
    stretch, steady:  as for `ibp`.
    """
    threat = _threat(batch, "sabr", stretch)
    points = batch.attacked(threat=threat.within(threat.eps * (1 - share)))
    boxes = around(batch, threat.within(threat.eps * share), points)

    def loss() -> Scored:
        seen = batch.boxed(boxes)
        worst = -seen.margins(batch.goal.label)
        return batch.cross_entropy(worst) + regularised(batch, boxes, seen, steady), worst

    return loss


def mtl_ibp(batch: Batch, alpha: float = 0.5, stretch: float = 1.0, steady: float = 0.5) -> Callable[[], Scored]:
    """α · CE at the worst logits that intervals allow + (1 - α) · CE(f(x')). De Palma et al. 2024, arXiv:2305.13991.

    Their equation 7. Batch norm takes its statistics from the attack's points.

    alpha:    0.5.
    stretch:  of the bounds; the attack has the threat's own eps.
    steady:   as for `ibp`.
    """
    boxes = around(batch, _threat(batch, "mtl-ibp", stretch), value=batch.attacked())

    def loss() -> Scored:
        seen = batch.boxed(boxes)
        worst = -seen.margins(batch.goal.label)
        both = alpha * batch.cross_entropy(worst) + (1 - alpha) * batch.cross_entropy(seen.value)
        return both + regularised(batch, boxes, seen, steady), worst

    return loss


def around(batch: Batch, threat: Threat, points: Tensor | None = None, value: Tensor | None = None) -> Boxes:
    """The threat's set round points (B, *shape), the images by default; `value`: what batch norm sees, also the images."""
    return boxes_of(batch.images if points is None else points, threat, batch.images if value is None else value)


def boxes_of(points: Tensor, threat: Threat, value: Tensor) -> Boxes:
    """Every image of an Linf threat's set round each of the points."""
    rows = points.flatten(1)
    least, most = threat.box(points)
    low, high = torch.maximum(rows - threat.eps, least), torch.minimum(rows + threat.eps, most)
    return Boxes.between(value, low.view_as(points), high.view_as(points))


def regularised(batch: Batch, before: Boxes, seen: Boxes, weight: float) -> Tensor | float:
    """What keeps bounds from growing through the layers, and activations from dying, while eps grows.

    Shi et al. 2021, arXiv:2103.17268, section 3.4: of what goes into each activation function, how much wider it is than the
    input, and how unlike those that are surely on and surely off are, in mean and in variance.
    """
    weight *= 1 - batch.warm
    if weight <= 0 or not seen.bent:
        return 0.0
    width = before.radius.mean()
    total = batch.images.new_zeros(())
    for centre, radius in seen.bent:
        total = total + (TOLERANCE - width / radius.mean().clamp_min(1e-12)).relu()
        on, off = centre > radius, centre < -radius
        counts = on.sum(), off.sum()
        if not all(map(bool, counts)):
            continue
        mean = centre.mean()
        (of_on, spread_on), (of_off, spread_off) = (
            _moments(centre * where, mean, count) for where, count in zip((on, off), counts, strict=True)
        )
        for ratio in (of_on / of_off.clamp_min(1e-12), spread_on / spread_off.clamp_min(1e-12)):
            total = total + (TOLERANCE - torch.minimum(ratio, 1 / ratio.clamp_min(1e-12))).relu()
    return weight * total / (TOLERANCE * len(seen.bent))


def _moments(part: Tensor, mean: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Of `count` numbers of one sign, 0 in the place of all others: the size of their sum, and Σ (x - mean)²."""
    total = part.sum()
    return total.abs(), part.square().sum() - mean * (2 * total - mean * count)


def _threat(batch: Batch, name: str, stretch: float) -> Threat:
    if not isinstance(batch.threat, Linf):
        raise ParameterError(f"{name} needs a threat whose set is a box, such as linf:0.1. Got {batch.threat}.")
    return batch.threat.within(batch.threat.eps * stretch)


__all__ = ["boxes_of", "crown_ibp", "ibp", "mtl_ibp", "regularised", "sabr"]
