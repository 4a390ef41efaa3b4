"""A model from one text: a bundled one, a network of this package, or `file.py:factory`; with weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import MissingData, ModelError, ParameterError, unknown
from . import formats
from .black_box import BlackBox
from .bring import brought
from .classifier import Model
from .networks import SeedCNN, SmallResNet
from .weights import apply

NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "seed-cnn": lambda channels, size, classes: SeedCNN(channels, size, classes),
    "small-resnet": lambda channels, size, classes: SmallResNet(channels, classes),
}
BUNDLED: dict[str, tuple[str, str]] = {  # name: file, what it is
    "fashion-mnist/plain": ("fashion-mnist-plain.safetensors", "the seed's CNN, trained normally"),
    "fashion-mnist/hardened": (
        "fashion-mnist-hardened.safetensors",
        "the seed's CNN, adversarially trained (PGD, Linf 0.1)",
    ),
}


def build(name: str, channels: int = 1, size: int = 28, classes: int = 10) -> nn.Module:
    """A network of this package, with fresh weights."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](channels, size, classes)


def load(
    spec: str,
    weights: str | Path | None = None,
    *,
    channels: int | None = None,
    size: Any = None,
    classes: Any = None,
    allow_code: bool = False,
    **options: Any,
) -> Any:
    """A model in eval mode, or a callable that gives no more than scores or labels.

    | spec | what it is |
    | --- | --- |
    | `fashion-mnist/plain` | a bundled model |
    | `seed-cnn` | a network of this package, with `weights` |
    | `file.py:factory` | a function without arguments (or a class) that returns the model; that file is run |
    | `timm:NAME` | a network of timm, with `weights` or the hub's |
    | `hf:NAME-OR-FOLDER` | an image classifier of transformers |
    | `model.onnx` | ONNX |
    | `model.keras` | Keras 3 |
    | `model.pt2`, `model.pt` | a program of `torch.export`, TorchScript |
    | `model.joblib`, `.pkl`, `.skops` | a classifier of scikit-learn |
    | `http://…`, `https://…` | an endpoint |

    weights:     safetensors, or a state dict saved by torch (read with `weights_only`).
    channels, size, classes:  of the data, for a network of this package (1, 28, 10); for a form that has an option of
                this name, that option.
    allow_code:  open what runs code of its own when it is opened: pickles, Lambda layers.
    options:     of the form; those of `http://…` are in `unfooled.models.formats.http`, and so on.

    Raises `MissingData`, `MissingExtra`, `ModelError`, `ParameterError`.
    """
    shape = {"channels": channels, "size": size, "classes": classes}
    shape = {name: value for name, value in shape.items() if value is not None}
    form = formats.form_of(spec)
    if options and form is None:
        raise ParameterError(f"There is no option {next(iter(options))!r} for {spec}.")
    if spec in BUNDLED:
        if weights is not None:
            raise ParameterError(f"{spec} has its weights: leave {weights} out, or name a network for them (seed-cnn).")
        with as_file(files("unfooled") / "assets" / BUNDLED[spec][0]) as path:
            return apply(SeedCNN(), path).eval()
    if form is not None:
        return formats.load(form, spec, None if weights is None else Path(weights), allow_code, options | shape)
    if ":" in spec and spec.rpartition(":")[0].endswith(".py"):
        model = _from_file(spec)
        if not isinstance(model, nn.Module):
            if weights is not None:
                raise ParameterError(f"{spec} is no nn.Module, so no weights can be loaded into it. Leave them out.")
            return model
    elif spec in NETWORKS:
        if weights is None:
            raise ParameterError(f"The network {spec!r} has no weights of its own: give a weights file, or train it.")
        model = build(spec, **shape)
    elif spec.endswith(".py"):
        raise ParameterError(f"{spec!r} names no factory: write {spec}:NAME, a function that returns the model.")
    else:
        raise unknown("model", spec, [*BUNDLED, *NETWORKS])
    return (model if weights is None else apply(model, Path(weights))).eval()


def _from_file(spec: str) -> Model:
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise MissingData(f"There is no file {file} to take the model {name!r} from.")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ModelError(f"{file} cannot be read as a Python file.")
    module = importlib.util.module_from_spec(found)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"{file} failed to run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    factory = getattr(module, name, None)
    if factory is None:
        raise unknown(f"factory in {file}", name, [n for n, v in vars(module).items() if callable(v)])
    model = brought(factory)
    makes_one = model is factory and not isinstance(factory, nn.Module | BlackBox)
    if makes_one:
        try:
            factory = factory()
        except Exception as error:
            raise ModelError(f"{spec} failed: {type(error).__name__}: {error}") from error
        model = brought(factory)
    if not callable(model):
        raise ModelError(f"{spec} must return a model, such as an nn.Module. It returned {type(factory).__name__}.")
    return model
