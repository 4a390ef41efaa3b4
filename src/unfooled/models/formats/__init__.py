"""The forms that models are stored in, one file each: `load(spec, weights, allow_code, **options)` gives the model."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from ...errors import ModelError, UnknownName
from ..classifier import Model

PREFIXES = {"timm:": "timm", "hf:": "transformers", "http://": "http", "https://": "http"}
SUFFIXES = {
    ".onnx": "onnx", ".keras": "keras", ".pt2": "exported", ".pt": "scripted", ".pth": "scripted", ".ts": "scripted",
    ".torchscript": "scripted", ".joblib": "sklearn", ".pkl": "sklearn", ".pickle": "sklearn", ".skops": "sklearn",
}  # fmt: skip
ASKING = frozenset({"budget", "rate", "parallel", "tries", "timeout", "cache"})
"""Options that say how a model is asked, not which one it is: a run goes on with others."""


def form_of(spec: str) -> str | None:
    """The name of the form that a text names by how it begins or ends; None: it is none of these."""
    for prefix, form in PREFIXES.items():
        if spec.startswith(prefix):
            return form
    return SUFFIXES.get(Path(spec).suffix.lower())


def load(form: str, spec: str, weights: Path | None, allow_code: bool, options: dict[str, Any]) -> Model:
    """The model of that form. Raises `MissingExtra`, `MissingData`, `ModelError`, `ParameterError`."""
    read = importlib.import_module(f"{__name__}.{form}").load
    known = [p.name for p in inspect.signature(read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            have = f"Those it has: {', '.join(known)}." if known else "It has none."
            raise UnknownName(f"There is no option {name!r} for {spec}. {have}")
    model: Model = read(spec, weights, allow_code, **options)
    return model


def refuse_code(what: str, allow_code: bool) -> None:
    """Say what opening a file would run, unless that is allowed."""
    if not allow_code:
        raise ModelError(
            f"{what}: opening it runs code that it carries. If you trust where it comes from, say so with --allow-code "
            "(in Python allow_code=True)."
        )
