"""The studies by name. No torch here: help lists them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import unknown


@dataclass(frozen=True)
class Study:
    """One study: what it is about in one line, and the module whose `run(asked, folder)` makes it.

    parts:   whether it can be asked for so many images, and for some of its parts alone.
    tables:  how many of its tables the terminal shows.
    """

    about: str
    module: str
    parts: bool = False
    tables: int = 1

    def load(self) -> Callable[..., Any]:
        """Its `run`: (`Asked`, `RunFolder`) to (`Evaluation`, `Album`)."""
        found: Callable[..., Any] = importlib.import_module(f".{self.module}", __package__).run
        return found


STUDIES: dict[str, Study] = {
    "traffic-signs": Study(
        "a reader of German traffic signs, and what a stop sign can be made to say", "traffic_signs"
    ),
    "chest-xray": Study("a finder of pneumonia on chest X-rays: cases missed, false alarms", "chest_xray"),
    "imagenet": Study("a pretrained network on photographs of ImageNet", "photographs"),
    "defenses": Study("every input defense, shown three ways on Fashion-MNIST and MNIST", "defenses", True, 2),
}


def study(name: str) -> Study:
    """The study of that name. Raises `UnknownName`."""
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return STUDIES[name]
