"""A run's examples: what became of each, filtered and ordered. No Gradio, no model; images where the data are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import MissingData, UnfooledError
from ..results import Evaluation
from ..store import RunFolder, shard_file

WRONG, HELD = "wrong without an attack", "held"
ORDERS = ("smallest change first", "largest change first", "by number")
PAGE = 24


@dataclass(frozen=True)
class Case:
    """What became of one example.

    example:   its name in the run; label, answer: classes (answer: on the clean image).
    fate:      the attack that fooled, `WRONG` or `HELD`.
    distance:  the size of the change; None where nothing fooled.
    """

    example: int
    label: int
    answer: int
    fate: str
    distance: float | None

    @property
    def fooled(self) -> bool:
        """Whether an attack fooled the model on it."""
        return self.fate not in (WRONG, HELD)


@dataclass(frozen=True)
class Filter:
    """Which cases to show; None: all of that kind.

    low, high:  of the size of the change; cases without one pass where `low` is 0.
    """

    label: int | None = None
    fate: str | None = None
    low: float = 0.0
    high: float = float("inf")
    order: str = ORDERS[0]


class Run:
    """A run folder as the explorer reads it. Raises `MissingData`, `DataError`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.evaluation: Evaluation = folder.evaluation()
        try:
            if self.evaluation.kind == "certificate":
                raise MissingData(f"{folder.path} holds certificates.")
            self.cases = _cases(folder.evidence())
        except MissingData:
            raise MissingData(
                f"{folder.path} holds an evaluation of kind {self.evaluation.kind!r} and no evidence by example: the "
                "explorer shows runs of 'unfooled evaluate' and 'unfooled attack'. Its report is report.html."
            ) from None
        self._shard_of = self._places()
        self._held: tuple[int, dict[str, np.ndarray]] | None = None
        self.note = ""
        self.classes, self._images = self._data()

    @property
    def settings(self) -> dict[str, str]:
        """What the run was made from."""
        return self.evaluation.settings

    @property
    def fates(self) -> list[str]:
        """What became of examples: attacks first, by how many they fooled."""
        counts: dict[str, int] = {}
        for case in self.cases:
            counts[case.fate] = counts.get(case.fate, 0) + 1
        return sorted(counts, key=lambda fate: (fate in (WRONG, HELD), -counts[fate]))

    @property
    def labels(self) -> list[int]:
        """The classes that occur."""
        return sorted({case.label for case in self.cases})

    @property
    def largest(self) -> float:
        """The largest change that fooled; 0 where none did."""
        return max((case.distance for case in self.cases if case.fooled and case.distance is not None), default=0.0)

    def name(self, label: int) -> str:
        """A class by its name, or its number."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def chosen(self, by: Filter) -> list[Case]:
        """The cases that pass, in order."""

        def passes(case: Case) -> bool:
            if by.label is not None and case.label != by.label:
                return False
            if by.fate is not None and case.fate != by.fate:
                return False
            if not case.fooled or case.distance is None:
                return by.low <= 0
            return by.low - 1e-9 <= case.distance <= by.high + 1e-9

        keys: dict[str, Callable[[Case], Any]] = {
            ORDERS[0]: lambda c: (not c.fooled, c.distance or 0.0, c.example),
            ORDERS[1]: lambda c: (not c.fooled, -(c.distance or 0.0), c.example),
            ORDERS[2]: lambda c: c.example,
        }
        return sorted(filter(passes, self.cases), key=keys[by.order])

    def images(self, case: Case) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The image and the adversarial one, (C, H, W) in [0, 1]; None where it is not to be had."""
        clean = None if self._images is None else self._images(case.example)
        return clean, self._adversarial(case) if case.fooled else None

    def _adversarial(self, case: Case) -> np.ndarray | None:
        shard = self._shard_of.get(case.example)
        if shard is None:
            return None
        number, row = shard
        if self._held is None or self._held[0] != number:
            self._held = number, self.folder.arrays(shard_file(number))
        found = self._held[1]["adversarial"][row]
        return found.astype(np.float32) if found.ndim == 3 and found.shape[0] in (1, 3) else None

    def _places(self) -> dict[int, tuple[int, int]]:
        """In which shard and row each example's adversarial image is."""
        places = {}
        for number in sorted(self.folder.shards()):
            for row, example in enumerate(self.folder.arrays(shard_file(number))["example"].tolist()):
                places[int(example)] = number, row
        return places

    def _data(self) -> tuple[tuple[str, ...], Callable[[int], np.ndarray | None] | None]:
        """Class names and images, where the data of the run's settings are on this computer; nothing is fetched."""
        names = {one.label: one.name for one in self.evaluation.classes}
        classes = tuple(names.get(k, str(k)) for k in range(max(names, default=-1) + 1))
        words = {key: self.settings[key] for key in ("resize", "crop") if self.settings.get(key)}
        try:
            from .. import data

            options: dict[str, Any] = {key: _size(value) for key, value in words.items()}
            found = data.load(self.settings.get("data", ""), download=False, **options)
        except UnfooledError as error:
            self.note = f"The images themselves are not shown: {error}"
            return classes, None
        if len(found.images.shape) != 4 or found.images.shape[1] not in (1, 3):
            self.note = "The data are no images, so only numbers are shown."
            return found.classes or classes, None
        if any(case.example >= len(found) or int(found.labels[case.example]) != case.label for case in self.cases):
            self.note = f"The images themselves are not shown: {found.name} has other examples than the run."
            return classes or found.classes, None

        def image(example: int) -> np.ndarray | None:
            array: np.ndarray = found[example : example + 1].floats(torch.float32)[:1][0].numpy()
            return array if array.min() >= 0 and array.max() <= 1 else None

        return found.classes or classes, image


def _cases(evidence: dict[str, np.ndarray]) -> list[Case]:
    columns = ("example", "label", "clean_prediction", "clean_correct", "success", "distance", "fooled_by")
    cases = []
    for example, label, answer, right, fooled, distance, by in zip(
        *(evidence[name].tolist() for name in columns), strict=True
    ):
        fate = (by or "an attack") if fooled else HELD if right else WRONG
        cases.append(Case(example, label, answer, fate, distance if fooled else None))
    return cases


def _size(words: str) -> int | tuple[int, int]:
    numbers = [int(part) for part in words.lower().split("x") if part.isdigit()]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
