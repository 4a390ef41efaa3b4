"""The set of inputs that a certificate covers, as linear bounds need it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ParameterError
from ..threats import L0, Linf, Threat


@dataclass(frozen=True)
class Reach:
    """A set round each of the images (N, *shape) float64: a box, and a ball within it.

    low, high:  (N, D) the box.
    radius:     (N,) of the ball, in the threat's norm; None: the box is all there is to it.
    """

    images: Tensor
    low: Tensor
    high: Tensor
    radius: Tensor | None
    threat: Threat

    @classmethod
    def of(cls, images: Tensor, threat: Threat) -> Reach:
        """Every point that `threat.contains` counts as inside: more than the ball. Raises `ParameterError` for L0."""
        if isinstance(threat, L0):
            raise ParameterError("No bounds cover L0. Certify for linf, l2 or l1.")
        radius, points = threat.reach(images).double(), images.double()
        rows, away = points.flatten(1), radius[:, None]
        least, most = (side.expand_as(rows) for side in threat.box(points))
        low, high = torch.maximum(rows - away, least), torch.minimum(rows + away, most)
        return cls(points, low, high, None if isinstance(threat, Linf) or math.isinf(threat.eps) else radius, threat)

    @classmethod
    def point(cls, images: Tensor, threat: Threat) -> Reach:
        """The images alone."""
        points = images.double()
        return cls(points, points.flatten(1), points.flatten(1), None, threat)

    @property
    def box(self) -> bool:
        """Whether the box is the set."""
        return self.radius is None

    def only(self, index: Tensor) -> Reach:
        """The sets round some of the images."""
        radius = None if self.radius is None else self.radius[index]
        return Reach(self.images[index], self.low[index], self.high[index], radius, self.threat)

    def hull(self) -> tuple[Tensor, Tensor]:
        """The smallest box round the set: two (N, *shape)."""
        return self.low.view_as(self.images), self.high.view_as(self.images)

    def least(self, rows: Tensor, images: slice = slice(None)) -> Tensor:
        """The smallest value over the set, or less, of linear functions (n or 1, rows, D): (n, rows)."""
        low, high, at = self.low[images], self.high[images], self.images[images].flatten(1)
        centre, half = (low + high) / 2, (high - low) / 2
        by_box = dot(rows, centre) - dot(rows.abs(), half)
        if self.radius is None:
            return by_box
        flat = rows.reshape(-1, *self.images.shape[1:])
        dual = self.threat.dual(flat).view(rows.shape[:2])
        by_ball = dot(rows, at) - self.radius[images, None] * dual
        return torch.maximum(by_box, by_ball)


def dot(rows: Tensor, points: Tensor) -> Tensor:
    """Linear functions (n, rows, D), or (1, rows, D) for all, at points (n, D): (n, rows)."""
    return points @ rows[0].T if len(rows) == 1 else torch.einsum("nrd,nd->nr", rows, points)
