"""How the learning rate and eps change over a run: functions of the share of it that is done, so that nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import unknown

Schedule = Callable[[float], float]
"""The share of the run that is done, in [0, 1], to a factor of the peak."""


def constant(share: float) -> float:
    """The peak throughout."""
    return 1.0


def one_cycle(share: float) -> float:
    """Up for 30 % and down by a cosine. Smith & Topin 2018, arXiv:1708.07120."""
    if share < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * share / 0.3)) / 2
    return 0.5 * (1 + math.cos(math.pi * (share - 0.3) / 0.7)) + 1e-5


def cyclic(share: float) -> float:
    """Straight up to the middle and down again: fast adversarial training. Wong et al. 2020, arXiv:2001.03994, section 5."""
    return 1 - abs(2 * share - 1)


def cosine(share: float) -> float:
    """Down by half a cosine. Loshchilov & Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1 + math.cos(math.pi * share))


def piecewise(share: float) -> float:
    """A tenth from the middle on, a hundredth from three quarters on: as long runs of adversarial training do it.

    Rice et al. 2020, arXiv:2002.11569, section 3.
    """
    return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01


SCHEDULES: dict[str, Schedule] = {
    "one-cycle": one_cycle,
    "cyclic": cyclic,
    "cosine": cosine,
    "piecewise": piecewise,
    "constant": constant,
}


def named(name: str) -> Schedule:
    """The schedule of that name."""
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name]


def even(share: float) -> float:
    """The same at every step."""
    return share


def smooth(share: float) -> float:
    """By the fourth power over the first quarter, evenly from there on: bounds can follow.

    As Xu et al. 2020, arXiv:2002.12920, appendix C, for certified training.
    """
    first, scale = 0.25, 1 / (0.25**4 + 4 * 0.25**3 * 0.75)
    return scale * (share**4 if share < first else first**4 + 4 * first**3 * (share - first))


RISES: dict[str, Schedule] = {"even": even, "smooth": smooth}
"""How eps grows: the share of its growth that is done to a factor of its full size."""


def warmed(share: float, until: float, rise: str = "even") -> float:
    """The factor of eps after a share of the run: it grows over the first part of it, up to `until`."""
    return RISES[rise](share / until) if share < until else 1.0
