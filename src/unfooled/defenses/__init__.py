"""Defenses in front of a model, each with a declared backward."""

from __future__ import annotations

import inspect

from .. import text
from ..errors import ParameterError, unknown
from .base import Defended, Defense, defend
from .filters import GaussianBlur, MedianFilter, PercentileFilter

DEFENSES: dict[str, type[Defense]] = {kind.name: kind for kind in (GaussianBlur, PercentileFilter, MedianFilter)}


def parse(words: str) -> Defense:
    """Read ``blur:sigma=1``, ``percentile:50,size=2``, ``median:3,backward=identity``."""
    call = text.parse(words)
    if call.name not in DEFENSES:
        raise unknown("defense", call.name, DEFENSES)
    names = list(inspect.signature(DEFENSES[call.name]).parameters)
    if len(call.values) > len(names):
        raise ParameterError(f"The defense {call.name!r} takes at most {len(names)} values. Got {words!r}.")
    options = dict(zip(names, call.values, strict=False)) | call.options
    for name in options:
        if name not in names:
            raise unknown(f"option of the defense {call.name!r}", name, names)
    return DEFENSES[call.name](**options)


__all__ = [
    "DEFENSES",
    "Defended",
    "Defense",
    "GaussianBlur",
    "MedianFilter",
    "PercentileFilter",
    "defend",
    "parse",
]
