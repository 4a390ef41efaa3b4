"""The noise of randomized smoothing, each with the radius that it certifies.

Both radii come from one fact about the share p of noisy images that a class wins: how much of it a shift of the image by
delta can take away. They are closed: a share above `needed(eps)` keeps the majority at every shift of size up to eps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from .. import rng
from ..errors import must_be
from ..threats import L1, L2, Threat

BITS = 52  # of each uniform number: its half steps are the last that float64 holds


class Noise(ABC):
    """A distribution of noise that is added to every component of an image, in input units.

    certifies:  the threats it is for, by their norm.
    """

    certifies: ClassVar[type[Threat]]

    @abstractmethod
    def draw(self, key: Tensor, shape: torch.Size) -> Tensor:
        """Float64 noise for images of that shape: keys (M,) to (M, *shape). It depends on the key alone."""

    @abstractmethod
    def radius(self, p: Any) -> Any:
        """The certified radius at a share p of one half or more, elementwise on numbers or arrays."""

    @abstractmethod
    def needed(self, eps: float) -> float:
        """The share that has to be exceeded to certify the radius eps: the inverse of `radius`, at most 1."""


@dataclass(frozen=True)
class Gaussian(Noise):
    """Normal noise; it certifies L2.

        radius = sigma * Phi^-1(p)

    The worst classifier for a shift is a halfspace across it, of which the shift takes Phi^-1(p) less by |delta| / sigma.

    sigma:  standard deviation in input units, a float > 0.

    Source: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, Theorem 1.
    """

    certifies = L2
    sigma: float

    def __post_init__(self) -> None:
        _positive("Gaussian", "sigma", self.sigma)

    def draw(self, key: Tensor, shape: torch.Size) -> Tensor:
        """See `Noise`."""
        noise: Tensor = self.sigma * torch.special.ndtri(_uniform(key, shape))
        return noise

    def radius(self, p: Any) -> Any:
        """See `Noise`."""
        return self.sigma * ndtri(p)

    def needed(self, eps: float) -> float:
        """See `Noise`."""
        return float(ndtr(eps / self.sigma))


@dataclass(frozen=True)
class Uniform(Noise):
    """Uniform noise in ± half_width; it certifies L1, up to less than half_width.

        radius = 2 * half_width * (p - 1/2)

    Two cubes shifted by delta share prod(1 - |delta_i| / (2 half_width)) >= 1 - |delta|_1 / (2 half_width) of their
    volume, and only what they do not share can change hands: p falls by at most |delta|_1 / (2 half_width).

    half_width:  in input units, a float > 0.

    Source: Yang et al. 2020, arXiv:2002.08118 (their lambda).
    """

    certifies = L1
    half_width: float

    def __post_init__(self) -> None:
        _positive("Uniform", "half_width", self.half_width)

    def draw(self, key: Tensor, shape: torch.Size) -> Tensor:
        """See `Noise`."""
        return self.half_width * (2 * _uniform(key, shape) - 1)

    def radius(self, p: Any) -> Any:
        """See `Noise`."""
        return 2 * self.half_width * (p - 0.5)

    def needed(self, eps: float) -> float:
        """See `Noise`."""
        return min(1.0, 0.5 + eps / (2 * self.half_width))


def _uniform(key: Tensor, shape: torch.Size) -> Tensor:
    """Float64 draws in (0, 1) with all bits that float64 has: `rng.uniform` has 23, whose grain a model could see."""
    component = rng.keys(torch.arange(shape.numel(), device=key.device))
    bits = rng.further(key[:, None], component) >> (64 - BITS) & ((1 << BITS) - 1)
    return ((bits.double() + 0.5) / (1 << BITS)).reshape(len(key), *shape)


def _positive(owner: str, name: str, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) < float("inf"):
        raise must_be(owner, name, "a finite float > 0, in the units of the images", given)
