"""Keras 3 models, on its torch backend: white box, channels last inside, (N, C, H, W) outside."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import MissingData, ModelError, ParameterError
from . import refuse_code
from .keras_model import KerasModel, Numbers, Sides, imported

CARRIES = {"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
"""Classes in a file's configuration whose making runs code that the file holds or names."""


def load(
    spec: str,
    weights: Path | None,
    allow_code: bool,
    *,
    scale: float = 1.0,
    mean: Numbers = None,
    std: Numbers = None,
    size: Sides = None,
    bgr: bool = False,
) -> KerasModel:
    """A model saved as `.keras`; the options are those of `KerasModel`.

    allow_code:  also with Lambda layers and others that carry code (Keras' safe_mode=False).

    Raises `MissingData`, `MissingExtra`, `ModelError`, `ParameterError`.
    """
    if weights is not None:
        raise ParameterError(f"{spec} holds its weights: leave {weights} out.")
    carried = _code_within(Path(spec))
    if carried:
        refuse_code(f"{spec} has layers that carry code ({', '.join(carried)})", allow_code)
    keras = imported()
    try:
        network = keras.saving.load_model(spec, compile=False, safe_mode=not allow_code)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        if "Could not locate" in reason or "not a KerasSaveable" in reason:
            reason += ". A model with classes of its own is made in a file of yours: give file.py:factory"
        raise ModelError(f"Keras {keras.__version__} cannot open {spec}: {reason}.") from error
    return KerasModel(network, scale=scale, mean=mean, std=std, size=size, bgr=bgr, source=spec)


def wrap(model: Any, **options: Any) -> KerasModel:
    """A Keras model as a model of tensors; the options are those of `KerasModel`.

    Raises `ModelError` where it is not built, or does not run on torch.
    """
    return KerasModel(model, **options)


def _code_within(path: Path) -> list[str]:
    """Layers of a file that carry code, by class and name, from its configuration alone."""
    if not path.is_file():
        raise MissingData(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path} is damaged, or no file that Keras 3 saves as .keras.") from error
    return sorted(set(_carrying(config)))


def _carrying(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        kind, config = part.get("class_name"), part.get("config")
        if kind in CARRIES - {"__lambda__"}:
            yield f"{kind} {config.get('name', '')!r}" if isinstance(config, Mapping) else str(kind)
            return
        if kind == "__lambda__":
            yield "a Python lambda"
        for held in part.values():
            yield from _carrying(held)
    elif isinstance(part, list):
        for held in part:
            yield from _carrying(held)
