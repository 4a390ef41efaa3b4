"""What an endpoint's answer says: scores or a label of each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError, must_be
from ..black_box import Answers

_SCORES = ("scores", "probabilities", "logits", "probs", "predictions", "prediction", "outputs", "output", "results")
_LABELS = ("label", "class", "prediction", "predictions", "labels", "classes", "outputs", "output", "results")
_NAME, _SCORE = ("label", "class", "name"), ("score", "probability", "confidence")  # of {"label": "cat", "score": 0.9}
SLACK = 1e-3  # that a probability may lie outside [0, 1], and by which two answers to one image differ at most


class Reader:
    """Reads answers of one kind.

    answers:  "logits", "probabilities" or "labels".
    classes:  how many, or their names in the order of the scores; None: as many as the first answer has.
    path:     dotted, to the answer in the JSON document: "predictions.0.scores"; "*" is the image's place in its request.
              "" finds it under the usual names.
    listed:   whether a request holds a list of images, and so the answer a list.

    Raises `ParameterError`; `ModelError` for an answer that is not of this kind.
    """

    def __init__(self, answers: Answers, classes: int | str | Sequence[str] | None, path: str, listed: bool) -> None:
        self.answers, self.path, self.listed = answers, str(path), listed
        self.names = _names(classes)
        self.count = classes if isinstance(classes, int) else len(self.names) or None
        if answers == "labels" and self.count is None:
            raise must_be(
                "the endpoint",
                "classes",
                "how many classes there are, or their names, where it answers labels",
                classes,
            )

    def split(self, document: Any, images: int) -> list[Any]:
        """The part of a document that is about each image, in the request's order."""
        steps = self.path.split(".") if self.path else []
        if "*" in steps:
            return [_at(document, [str(at) if step == "*" else step for step in steps]) for at in range(images)]
        found = _at(document, steps)
        if not self.listed:
            return [found]
        found = found if self.path else self._unwrapped(found, alone=False)
        if not isinstance(found, list) or len(found) != images:
            what = f"{len(found)} answers" if isinstance(found, list) else _brief(found)
            raise ModelError(f"The endpoint must answer {images} images by a list of as many. It answered {what}.")
        return found

    def row(self, found: Any) -> NDArray[Any]:
        """The scores (C,) in float64, or the label () in int64, of what one image was answered."""
        found = self._unwrapped(found, alone=True)
        return np.asarray(self._label(found), dtype=np.int64) if self.answers == "labels" else self._scores(found)

    def alike(self, one: NDArray[Any], other: NDArray[Any]) -> bool:
        """Whether two answers to one image are the same but for rounding."""
        if self.answers == "labels" or not (np.isfinite(one).all() and np.isfinite(other).all()):
            return bool(np.array_equal(one, other, equal_nan=self.answers != "labels"))
        return bool(np.abs(one - other).max() <= SLACK * (one.max() - one.min()))

    def _unwrapped(self, found: Any, alone: bool) -> Any:
        """What lies under the usual names, and within a list of one."""
        if self.path and not alone:
            return found
        usual = _LABELS if self.answers == "labels" else _SCORES
        while True:
            if isinstance(found, dict) and not set(found) <= set(self.names):
                fits = int | float | str | list | dict if self.answers == "labels" else list | dict
                inner = next((found[name] for name in usual if isinstance(found.get(name), fits)), None)
                if inner is not None:
                    found = inner
                    continue
            elif alone and isinstance(found, list) and len(found) == 1 and (
                isinstance(found[0], list) or self.answers == "labels" or (isinstance(found[0], dict) and not _pair(found[0]))
            ):  # fmt: skip
                found = found[0]
                continue
            return found

    def _scores(self, found: Any) -> NDArray[np.float64]:
        pairs = _pairs(found)
        values = self._ordered(pairs) if pairs is not None else found
        if not isinstance(values, list) or not values or not all(map(_number, values)):
            label = isinstance(found, int | str) or (isinstance(found, dict) and _of(found, _NAME) is not None)
            hint = " If it answers labels, say answers=labels and classes=…." if label else ""
            raise ModelError(
                f"The endpoint must answer a list of scores, or a mapping from class names to scores. It answered "
                f"{_brief(found)}.{hint}"
            )
        if len(values) == 1 and self.count in (None, 2):  # the second of two classes
            values = [1 - values[0] if self.answers == "probabilities" else 0.0, values[0]]
        self.count = self.count or len(values)
        if len(values) != self.count:
            raise ModelError(f"The endpoint answered {len(values)} scores for {self.count} classes: {_brief(found)}.")
        row = np.asarray(values, dtype=np.float64)
        if self.answers == "probabilities" and bool((row < -SLACK).any() or (row > 1 + SLACK).any()):
            raise ModelError(f"The endpoint answered what are no probabilities: {_brief(found)}. Say answers=logits.")
        return row

    def _ordered(self, pairs: dict[str, float]) -> list[float]:
        """Scores by class name in the order of the classes."""
        if self.names:
            missing, other = [n for n in self.names if n not in pairs], [n for n in pairs if n not in self.names]
            if missing or other:
                what = f"the class {other[0]!r}, which is none of {_brief(list(self.names))}" if other else (
                    f"{len(pairs)} of {len(self.names)} classes, without {missing[0]!r}: have it answer all, or say "
                    "answers=labels"
                )  # fmt: skip
                raise ModelError(f"The endpoint answered {what}.")
            return [pairs[name] for name in self.names]
        if sorted(pairs) != sorted(map(str, range(len(pairs)))):
            raise ModelError(
                f"The endpoint names its classes: {_brief(list(pairs))}. Say their order by classes=NAME,NAME,…."
            )
        return [pairs[str(at)] for at in range(len(pairs))]

    def _label(self, found: Any) -> int:
        assert self.count is not None
        pairs = _pairs(found)
        if pairs:
            found = max(pairs, key=lambda name: pairs[name])
        if isinstance(found, str) and found in self.names:
            return self.names.index(found)
        known = f": {_brief(list(self.names))}" if self.names else " from 0. Give their names by classes=NAME,NAME,…"
        try:
            label = int(found) if isinstance(found, str) or (_number(found) and float(found).is_integer()) else None
        except ValueError:
            raise ModelError(
                f"The endpoint answered the label {found!r}, which is none of {self.count}{known}."
            ) from None
        if label is None:
            raise ModelError(
                f"The endpoint must answer a label, an integer or a class name. It answered {_brief(found)}."
            )
        if not 0 <= label < self.count:
            raise ModelError(f"The endpoint answered the label {label}, and there are {self.count} classes, from 0.")
        return label


def _names(classes: Any) -> tuple[str, ...]:
    """The names in `classes`, if it has any."""
    named: tuple[str, ...] = ()
    if isinstance(classes, str):
        named = tuple(name.strip() for name in classes.split(","))
    elif isinstance(classes, Sequence):
        named = tuple(map(str, classes))
    right = (len(named) >= 2 and len(set(named)) == len(named)) if named else classes is None or (
        type(classes) is int and classes >= 2
    )  # fmt: skip
    if not right:
        raise must_be("the endpoint", "classes", "an int of at least 2, or as many different names: cat,dog", classes)
    return named


def _at(document: Any, steps: Sequence[str]) -> Any:
    """What a dotted path leads to."""
    found = document
    for step in steps:
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError):
            have = f"the entries {_brief(list(found))}" if isinstance(found, dict) else _brief(found)
            raise ModelError(
                f"The endpoint's answer has no {step!r} on the path {'.'.join(steps)}: it has {have}."
            ) from None
    return found


def _pairs(found: Any) -> dict[str, float] | None:
    """Class names and their scores, of a mapping or of a list of {"label": …, "score": …}."""
    if isinstance(found, dict) and found and all(map(_number, found.values())):
        return {str(name): float(score) for name, score in found.items()}
    if isinstance(found, list) and found and all(_pair(one) for one in found):
        return {str(_of(one, _NAME)): float(_of(one, _SCORE)) for one in found}
    return None


def _pair(one: Any) -> bool:
    return isinstance(one, dict) and _of(one, _NAME) is not None and _number(_of(one, _SCORE))


def _of(one: dict[str, Any], names: Sequence[str]) -> Any:
    return next((one[name] for name in names if name in one), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
