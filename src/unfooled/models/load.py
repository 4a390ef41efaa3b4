"""A model from one text: a bundled one, a network of this package, or `file.py:factory`; with weights."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from torch import nn

from ..errors import MissingData, ModelError, ParameterError, unknown
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
    spec: str, weights: str | Path | None = None, *, channels: int = 1, size: int = 28, classes: int = 10
) -> nn.Module:
    """A model in eval mode.

    spec:     a bundled model ("fashion-mnist/plain"), a network ("seed-cnn"), or "file.py:factory", where factory is a
              function without arguments (or a class) that returns an nn.Module. That file is run: it is your own code.
    weights:  safetensors, or a state dict saved by torch (read with `weights_only`).
    channels, size, classes:  of the data, for a network of this package.
    """
    if spec in BUNDLED:
        with as_file(files("unfooled") / "assets" / BUNDLED[spec][0]) as path:
            return apply(SeedCNN(), path).eval()
    if ":" in spec and spec.rpartition(":")[0].endswith(".py"):
        model = _from_file(spec)
    elif spec in NETWORKS:
        if weights is None:
            raise ParameterError(f"The network {spec!r} has no weights of its own: give a weights file, or train it.")
        model = build(spec, channels, size, classes)
    elif spec.endswith(".py"):
        raise ParameterError(f"{spec!r} names no factory: write {spec}:NAME, a function that returns the model.")
    else:
        raise unknown("model", spec, [*BUNDLED, *NETWORKS])
    return (model if weights is None else apply(model, Path(weights))).eval()


def _from_file(spec: str) -> nn.Module:
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
    if not isinstance(factory, nn.Module) or inspect.isclass(factory):
        try:
            factory = factory()
        except Exception as error:
            raise ModelError(f"{spec} failed: {type(error).__name__}: {error}") from error
    if not isinstance(factory, nn.Module):
        raise ModelError(f"{spec} must return an nn.Module. It returned {type(factory).__name__}.")
    return factory
