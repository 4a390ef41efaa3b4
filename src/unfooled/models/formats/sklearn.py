"""Classifiers of scikit-learn and of what follows its interface: scores where they have any, else labels."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingData, MissingExtra, ModelError, Note, ParameterError, must_be
from ..black_box import BlackBox
from ..facts import Facts
from . import refuse_code

LEAST = 1e-12  # of a probability, whose logarithm is a score
LEAD = 1e-3  # by which the class that is answered leads where other scores are higher, of their range

Scores = Literal["decision_function", "predict_proba", ""]
KNOWN: tuple[Scores, ...] = ("decision_function", "predict_proba")


def load(spec: str, weights: Path | None, allow_code: bool, *, scale: float = 1.0, last: bool = False) -> BlackBox:
    """A fitted classifier from `.joblib`, `.pkl`, `.pickle` or `.skops`; the options are those of `wrap`.

    A pickle runs what it holds. A `.skops` file is opened without `allow_code` if it holds known types only.

    Raises `MissingData`, `MissingExtra`, `ModelError`, `ParameterError`.
    """
    path = Path(spec)
    if weights is not None:
        raise ParameterError(f"{spec} holds the fitted classifier: leave {weights} out.")
    if not path.is_file():
        raise MissingData(f"There is no file {path}.")
    skops = path.suffix.lower() == ".skops"
    if not skops:
        refuse_code(f"{spec} is a pickle", allow_code)
    _package("sklearn")
    with _told(spec):
        try:
            found = _from_skops(path, allow_code) if skops else _package("joblib").load(path)
        except (ModelError, MissingExtra):
            raise
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            raise ModelError(f"{spec} cannot be opened: {reason}.") from error
    return wrap(found, scale=scale, last=last, source=spec)


def _from_skops(path: Path, allow_code: bool) -> Any:
    skops = _package("skops.io")
    unknown = skops.get_untrusted_types(file=path)
    if unknown:
        refuse_code(f"{path} holds types that skops does not know ({', '.join(unknown)})", allow_code)
    return skops.load(path, trusted=unknown)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f'{name.partition(".")[0]} is not installed. Install it: pip install "unfooled[sklearn]"'
        ) from error


@contextmanager
def _told(spec: str) -> Iterator[None]:
    """What scikit-learn warns of while it opens a file, as one note."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    for one in seen:
        saved = getattr(one.message, "original_sklearn_version", None)
        if saved is not None:
            text = f"{spec} was saved by scikit-learn {saved}; this is another version, whose answers may differ."
            warnings.warn(text, Note, stacklevel=4)
            return


def wrap(estimator: Any, *, scale: float = 1.0, last: bool = False, source: str = "") -> BlackBox:
    """A fitted classifier as a model of tensors: rows (N, D), or images that are flattened to as many features.

    An attacker sees its scores: `decision_function`, else the logarithm of `predict_proba`; where it has neither, its
    labels. What counts is what `predict` answers: where that is another class than the one with the highest score, as
    with votes, ties and moved thresholds, it gets the highest. Class k is the k-th of `classes_`.

    scale:  what the images are multiplied by, for a classifier that was fitted on another range.
    last:   whether images were flattened with the channels last.

    Raises `ModelError` where it is no classifier, or not fitted; `ParameterError`.
    """
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise must_be("sklearn", "scale", "a float above 0, such as 255", scale)
    classes = _classes(estimator)
    kind: Scores = next((name for name in KNOWN if hasattr(estimator, name)), "")
    asked = _Asked(estimator, classes, kind, float(scale), bool(last), *_features(estimator))
    plain = np.array_equal(classes, np.arange(len(classes)))
    facts = Facts(
        format=f"scikit-learn, {asked.__name__}",
        source=source,
        size=None if asked.features is None else (asked.features,),
        preprocessing="" if scale == 1.0 else f"times {scale:g}",
        classes=() if plain else tuple(str(name) for name in classes),
    )
    return BlackBox(asked, "logits" if kind else "labels", len(classes), arrays=True, facts=facts)


def _classes(estimator: Any) -> NDArray[Any]:
    """The classes of a fitted classifier."""
    kind = type(estimator).__name__
    if isinstance(estimator, type):
        raise ModelError(
            f"{estimator.__name__} is a class: give a classifier that is fitted, {estimator.__name__}().fit(…)."
        )
    if not hasattr(estimator, "predict") or not _package("sklearn.base").is_classifier(estimator):
        raise ModelError(f"A {kind} is no classifier of scikit-learn: unfooled attacks what answers classes.")
    try:
        _package("sklearn.utils.validation").check_is_fitted(estimator)
        classes = estimator.classes_
    except Exception as error:  # each package has its own for this
        raise ModelError(f"This {kind} is not fitted: call its fit(images, labels) first.") from error
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise ModelError(f"This {kind} answers several labels for an image. One class for each is needed.")
    if len(classes) < 2:
        raise ModelError(
            f"This {kind} was fitted on one class only ({classes[0]}): there is no other to be fooled into."
        )
    return np.asarray(classes)


def _features(estimator: Any) -> tuple[int | None, tuple[str, ...]]:
    """How many features it was fitted on, and their names, where it says so."""
    count, names = (getattr(estimator, name, None) for name in ("n_features_in_", "feature_names_in_"))
    return None if count is None else int(count), () if names is None else tuple(map(str, names))


def _pairwise(estimator: Any) -> bool:
    """Whether its decision function has a column for each pair of classes, as that of an SVC may."""
    shape = "decision_function_shape"
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    return any(value == "ovo" for name, value in params.items() if name.rpartition("__")[2] == shape)


@dataclass(frozen=True, eq=False)
class _Asked:
    """The function that is asked: arrays (N, *shape) to logits (N, C) or labels (N,)."""

    estimator: Any
    classes: NDArray[Any]
    scores: Scores
    scale: float
    last: bool
    features: int | None
    names: tuple[str, ...]

    @property
    def __name__(self) -> str:
        final = getattr(self.estimator, "_final_estimator", None)
        name = type(self.estimator).__name__
        return name if final is None else f"{name} of {type(final).__name__}"

    def __call__(self, images: NDArray[Any]) -> NDArray[Any]:
        rows = self._rows(images)
        answered = self._positions(self.estimator.predict(rows))
        if not self.scores:
            return answered
        found = np.asarray(getattr(self.estimator, self.scores)(rows))
        if self.scores == "predict_proba":
            found = np.log(np.maximum(found, LEAST))
        elif found.ndim == 1:
            found = np.stack([np.zeros_like(found), found], 1)
        elif len(self.classes) > 2 and _pairwise(self.estimator):
            found = _of_pairs(found, len(self.classes))
        return _agreeing(found, answered)

    def _rows(self, images: NDArray[Any]) -> Any:
        """Rows (N, D) of features, in the images' own precision."""
        rows = images if self.scale == 1.0 else images * np.asarray(self.scale, images.dtype)
        if self.features is not None:
            if rows.ndim == 4 and self.last:
                rows = rows.transpose(0, 2, 3, 1)
            rows = rows.reshape(len(rows), -1)
            if rows.shape[1] != self.features:
                raise ModelError(
                    f"The {self.__name__} takes {self.features} features. Images of shape {images.shape[1:]} have "
                    f"{rows.shape[1]}."
                )
        return rows if not self.names else _named(rows, self.names)

    def _positions(self, answers: Any) -> NDArray[np.int64]:
        """The positions of answers (N,) among the classes."""
        order = np.argsort(self.classes)
        at = np.searchsorted(self.classes[order], answers).clip(0, len(order) - 1)
        found: NDArray[np.int64] = order[at]
        strange = np.flatnonzero(self.classes[found] != answers)
        if len(strange):
            raise ModelError(f"The {self.__name__} answered {answers[strange[0]]}, which is none of its classes.")
        return found


def _named(rows: NDArray[Any], names: tuple[str, ...]) -> Any:
    """Rows as the table that the classifier was fitted on: a pipeline may choose columns by name."""
    try:
        return importlib.import_module("pandas").DataFrame(rows, columns=list(names))
    except ImportError:  # it was fitted on another library's table; most take an array as well
        return rows


def _of_pairs(margins: NDArray[Any], classes: int) -> NDArray[Any]:
    """What each class (N, C) has won over the others: columns (0, 1), (0, 2) … (N, C·(C-1)/2), above 0 for the first."""
    won = np.zeros((len(margins), classes), margins.dtype)
    for column, (a, b) in enumerate(zip(*np.triu_indices(classes, 1), strict=True)):
        won[:, a] += margins[:, column]
        won[:, b] -= margins[:, column]
    return won


def _agreeing(scores: NDArray[Any], answered: NDArray[np.int64]) -> NDArray[Any]:
    """Scores (N, C) whose highest is that of the class which is answered (N,)."""
    apart = np.flatnonzero(scores.argmax(1) != answered)
    if len(apart):
        scores = scores.astype(np.float64)
        of = scores[apart]
        scores[apart, answered[apart]] = of.max(1) + LEAD * np.maximum(np.ptp(of, 1), 1)
    return scores
