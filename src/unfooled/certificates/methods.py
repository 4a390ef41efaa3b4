"""The ways to bound a network: `ibp`, `crown`, `alpha-crown`, and `auto`, each on what the cheaper ones left open.

linear:  whether a method starts from linear bounds of every outcome, or from intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import text
from ..errors import must_be
from .bounds import Bounds, by_intervals, interval
from .graph import Network
from .linear import crown, least_logits
from .reach import Reach
from .slopes import optimised

ALL = slice(None)


@dataclass(frozen=True)
class IBP:
    """Intervals, and the last affine step merged with the differences of logits. Gowal et al. 2018, arXiv:1810.12715."""

    name: ClassVar[str] = "ibp"
    linear: ClassVar[bool] = False

    def least(self, found: Bounds, rows: Tensor) -> Tensor:
        """Lower bounds of linear functions of the logits (n, rows, classes): (n, rows)."""
        return by_intervals(found, rows, ALL)


@dataclass(frozen=True)
class CROWN:
    """Linear bounds. Zhang et al. 2018, arXiv:1811.00866."""

    name: ClassVar[str] = "crown"
    linear: ClassVar[bool] = True

    def least(self, found: Bounds, rows: Tensor) -> Tensor:
        """Lower bounds of linear functions of the logits (n, rows, classes): (n, rows)."""
        return torch.maximum(by_intervals(found, rows, ALL), least_logits(found, rows, ALL))


@dataclass(frozen=True)
class AlphaCROWN:
    """Linear bounds with slopes that are optimised for each function. Xu et al. 2021, arXiv:2011.13824.

    steps:          of Adam; 20 by default.
    learning_rate:  of slopes; 0.25 by default.
    """

    steps: int = 20
    learning_rate: float = 0.25
    name: ClassVar[str] = "alpha-crown"
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise must_be("AlphaCROWN", "steps", "an int of at least 1", self.steps)
        if not self.learning_rate > 0:
            raise must_be("AlphaCROWN", "learning_rate", "a float above 0", self.learning_rate)

    def least(self, found: Bounds, rows: Tensor) -> Tensor:
        """Lower bounds of linear functions of the logits (n, rows, classes): (n, rows)."""
        usual = by_intervals(found, rows, ALL)
        return torch.maximum(usual, optimised(found, rows, self.steps, self.learning_rate))


Method = IBP | CROWN | AlphaCROWN
"""One of them."""
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in (IBP, CROWN, AlphaCROWN)}
"""The methods by name."""


def bounds(linear: bool, network: Network, reach: Reach, unit: float) -> Bounds:
    """Of every outcome: by linear bounds, or by intervals alone. Methods that share them need them once."""
    return crown(network, reach, unit) if linear else interval(network, reach, unit)


def parse(words: str) -> Method:
    """Read ``ibp``, ``crown``, ``alpha-crown:steps=50``."""
    built = text.build("method of certification", text.parse(words), METHODS)
    assert isinstance(built, Method)
    return built
