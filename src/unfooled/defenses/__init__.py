"""Defenses in front of a model, each with a declared backward."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .. import text
from ..errors import ParameterError, unknown
from .base import Defended, Defense, defend
from .codes import Thermometer
from .filters import GaussianBlur, MedianFilter, PercentileFilter
from .jpeg import JPEG
from .transforms import BitDepth, Noise, RandomShift, ResizePad
from .variation import TotalVariation

DEFENSES: dict[str, type[Defense]] = {
    kind.name: kind
    for kind in (
        GaussianBlur, PercentileFilter, MedianFilter, BitDepth, JPEG, TotalVariation, RandomShift, ResizePad, Noise,
        Thermometer,
    )
}  # fmt: skip


def parse(words: str) -> Defense:
    """Read ``blur:sigma=1``, ``percentile:50,size=2``, ``median:3,backward=identity``, ``random-shift:pixels=2``."""
    name, options = _read(words)
    return DEFENSES[name](**options)


def family(words: str) -> tuple[str, str, Callable[[float], Defense]]:
    """A defense as a function of its first option: its name, that option's name, and the function.

    Other options that the words give stay, as in ``percentile:size=3``.
    """
    name, options = _read(words)
    strength, first = next(iter(inspect.signature(DEFENSES[name]).parameters.items()))

    def make(value: float) -> Defense:
        whole = isinstance(first.default, int) and value == int(value)
        return DEFENSES[name](**options | {strength: int(value) if whole else value})

    return name, strength, make


def _read(words: str) -> tuple[str, dict[str, Any]]:
    call = text.parse(words)
    if call.name not in DEFENSES:
        raise unknown("defense", call.name, DEFENSES)
    names = list(inspect.signature(DEFENSES[call.name]).parameters)
    if call.inner:
        raise ParameterError(f"{words!r} should be a defense and its options, as in 'blur:1' or 'median:size=3'.")
    return call.name, text.options("the defense", call, names)


__all__ = [
    "DEFENSES",
    "JPEG",
    "BitDepth",
    "Defended",
    "Defense",
    "GaussianBlur",
    "MedianFilter",
    "Noise",
    "PercentileFilter",
    "RandomShift",
    "ResizePad",
    "Thermometer",
    "TotalVariation",
    "defend",
    "family",
    "parse",
]
