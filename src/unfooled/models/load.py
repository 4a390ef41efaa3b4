"""A model from one text: a bundled one, a network of this package, or `file.py:factory`; with weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import MissingData, ModelError, ParameterError, UnfooledError, unknown
from . import formats
from .black_box import BlackBox
from .bring import brought
from .classifier import Model
from .networks import CertifiedCNN, SeedCNN, SmallCNN, SmallResNet
from .weights import apply

NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "seed-cnn": lambda channels, size, classes: SeedCNN(channels, size, classes),
    "small-cnn": lambda channels, size, classes: SmallCNN(channels, size, classes),
    "certified-cnn": lambda channels, size, classes: CertifiedCNN(channels, size, classes),
    "small-resnet": lambda channels, size, classes: SmallResNet(channels, classes),
}
BUNDLED: dict[str, tuple[str, str, str]] = {  # name: file, network, what it is
    "fashion-mnist/plain": ("fashion-mnist-plain.safetensors", "seed-cnn", "the seed's CNN, trained normally"),
    "fashion-mnist/hardened": (
        "fashion-mnist-hardened.safetensors",
        "seed-cnn",
        "the seed's CNN, adversarially trained (PGD, Linf 0.1)",
    ),
    "fashion-mnist/pgd-small": (
        "fashion-mnist-pgd-small.safetensors",
        "small-cnn",
        "a small CNN, adversarially trained (PGD, Linf 0.1)",
    ),
    "fashion-mnist/trades-small": (
        "fashion-mnist-trades-small.safetensors",
        "small-cnn",
        "a small CNN, adversarially trained (TRADES, Linf 0.1)",
    ),
    "fashion-mnist/ibp": (
        "fashion-mnist-ibp.safetensors",
        "certified-cnn",
        "a small CNN, trained to be proved (IBP, Linf 0.1)",
    ),
    "mnist/pgd-small": (
        "mnist-pgd-small.safetensors",
        "small-cnn",
        "a small CNN, adversarially trained (PGD, Linf 0.3)",
    ),
    "mnist/ibp": (
        "mnist-ibp.safetensors",
        "certified-cnn",
        "a small CNN, trained to be proved (IBP, Linf 0.3)",
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
            return apply(build(BUNDLED[spec][1]), path).eval()
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
        raise _no_form(spec) or unknown("model", spec, [*BUNDLED, *NETWORKS])
    return (model if weights is None else apply(model, Path(weights))).eval()


FOREIGN = {  # files that others write, and what to do with them
    (".h5", ".hdf5"): "is of an older Keras: open it there and save it as .keras, model.save('model.keras')",
    (".tflite", ".pb"): "is of TensorFlow: convert it to ONNX, and give the .onnx file",
    (".safetensors", ".bin", ".ckpt"): "holds weights, not a network: give it with --weights, and name the network",
    (".engine", ".plan", ".mlmodel", ".mlpackage"): "is made for one machine: export the model it came from to ONNX",
}


def _no_form(spec: str) -> UnfooledError | None:
    """What to say of a file or folder that is there, but in no form that is read here."""
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return ModelError(
                f"{spec} is a SavedModel, which only TensorFlow runs: save the model as .keras, or convert it to ONNX."
            )
        cure = f"write hf:{spec} or timm:{spec}" if (path / "config.json").is_file() else "name the file of the model"
        return ModelError(f"{spec} is a folder. If it holds a model, {cure}.")
    what = next((words for suffixes, words in FOREIGN.items() if path.suffix.lower() in suffixes), "")
    if path.is_file():
        what = what or "is in no form that is read here; the guide to your own model lists them"
        return ModelError(f"{spec} {what}.")
    return MissingData(f"There is no file {spec}.") if what else None


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
    except (Exception, SystemExit) as error:  # a program that reads a command line of its own ends itself
        raise ModelError(f"{file} failed to run: {_said(error)}") from error
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
        except (Exception, SystemExit) as error:
            raise ModelError(f"{spec} failed: {_said(error)}") from error
        model = brought(factory)
    if not callable(model):
        raise ModelError(f"{spec} must return a model, such as an nn.Module. It returned {type(factory).__name__}.")
    return model


def _said(error: BaseException) -> str:
    """An error of the user's own code in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
