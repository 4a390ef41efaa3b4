"""What a caller hands over as a model, where it is not a callable of tensors: wrapped by what it is."""

from __future__ import annotations

import importlib
from typing import Any

from .classifier import Model

KINDS = {"sklearn": "sklearn", "keras": "keras"}  # the package that a class comes from, and the file that wraps it


def brought(model: Any) -> Model:
    """A scikit-learn classifier or a Keras model as a model of tensors; anything else as it is."""
    for kind in type(model).__mro__:
        form = KINDS.get(kind.__module__.partition(".")[0])
        if form is not None:
            wrapped: Model = importlib.import_module(f".formats.{form}", __package__).wrap(model)
            return wrapped
    answer: Model = model
    return answer
