"""Image classifiers of transformers: what their processor does to images becomes part of the model, in torch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import MissingData, MissingExtra, ModelError, UnfooledError
from ..classifier import Model
from ..facts import Facts
from ..pixels import Pixels, check
from ..vision import torchvision
from ..weights import apply
from ..wrappers import Output
from . import refuse_code
from .processors import Preparation
from .stated import Stated
from .timm import adapted, unreachable
from .timm import installed as timm_installed

INSTEAD = "give the folder of a model that was saved or downloaded before: hf:FOLDER"


def load(spec: str, weights: Path | None, allow_code: bool, *, processor: str | None = None) -> Model:
    """`hf:FOLDER` or `hf:OWNER/NAME`.

    weights:    other ones than the model's own: safetensors, or a state dict.
    processor:  a folder or name to take the image processor from; None: the model's own.
    allow_code: run Python code that the model brings with it.

    Raises `MissingExtra`, `MissingData`, `ModelError`, `ParameterError`.
    """
    package = installed()
    name = _place(spec, spec.removeprefix("hf:"))
    with _quiet(package):
        with _told(spec, name):
            config = package.AutoConfig.from_pretrained(name, trust_remote_code=allow_code)
        network = _network(package, spec, name, config, weights, allow_code)
        if hasattr(network, "timm_model"):
            return _of_timm(network, spec, config)
        place = _place(spec, processor) if processor else name
        with _told(spec, place, "preprocessor_config.json"):
            prepares = package.AutoImageProcessor.from_pretrained(place, trust_remote_code=allow_code)
        return _adapted(network, prepares, config, spec)


def installed() -> ModuleType:
    """transformers, imported. Raises `MissingExtra`."""
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra('Models of transformers need transformers: pip install "unfooled[hub]"')
    torchvision()  # which its processors import where it is there
    return importlib.import_module("transformers")


def _place(spec: str, name: str) -> str:
    """A folder in full, or the name of a model on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingData(f"There is no folder {name}, to load {spec}.")
    return name


def _network(
    package: ModuleType, spec: str, name: str, config: Any, weights: Path | None, allow_code: bool
) -> nn.Module:
    kind = package.AutoModelForImageClassification
    with _told(spec, name, kind=str(getattr(config, "model_type", ""))):
        if weights is not None:
            network: nn.Module = apply(kind.from_config(config, trust_remote_code=allow_code), weights)
        else:
            network, seen = kind.from_pretrained(name, trust_remote_code=allow_code, output_loading_info=True)
            lacking = sorted(map(str, seen["missing_keys"]))
            if lacking:
                raise ModelError(
                    f"{spec} is no trained classifier: it has no weights for {', '.join(lacking[:4])}"
                    f"{' and others' if len(lacking) > 4 else ''}. Fine-tune it first, or give all weights with --weights."
                )
    return network.float().eval()  # newer versions keep the precision on disk, which may be too coarse for gradients


@contextmanager
def _told(spec: str, name: str, file: str = "config.json", kind: str = "") -> Iterator[None]:
    """What transformers raises, in one line."""
    try:
        yield
    except UnfooledError:
        raise
    except Exception as error:
        reason = _reason(error)
        if "trust_remote_code" in str(error):
            refuse_code(spec, False)
        if isinstance(error, OSError) and not Path(name).is_dir():
            raise unreachable(spec, error, INSTEAD) from error
        if isinstance(error, OSError):
            lacks = "no weights" if (Path(name) / file).is_file() else f"no {file}"
            raise MissingData(
                f"{name} holds {lacks} that transformers can read: save model and processor there with save_pretrained."
            ) from error
        if "Unrecognized configuration class" in str(error):
            raise ModelError(f"{spec} is no image classifier: transformers knows none of the kind {kind!r}.") from error
        raise ModelError(f"transformers cannot load {spec}: {reason}.") from error


@contextmanager
def _quiet(package: ModuleType) -> Iterator[None]:
    """No bars and no warnings: what matters of them is an error here."""
    logging = package.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _of_timm(network: nn.Module, spec: str, config: Any) -> Pixels:
    """A network of timm that transformers wraps: prepared as timm does, which is what its processor calls."""
    inner: Any = network.timm_model
    about = dict(getattr(config, "pretrained_cfg", None) or getattr(inner, "pretrained_cfg", {}))
    inner.pretrained_cfg = {**about, "label_names": _labels(config) or about.get("label_names")}
    return adapted(timm_installed(), inner, "timm, in transformers", spec, Stated())


def _adapted(network: nn.Module, processor: Any, config: Any, spec: str) -> Pixels:
    preparation = Preparation.of(processor)
    channels = int(getattr(config, "num_channels", 3) or 3)
    facts = Facts(f"transformers, {type(network).__name__}", spec, preparation.size(channels), classes=_labels(config))
    found = Pixels(Output(network, "logits"), preparation.steps, preparation.mean, preparation.std, channels, facts)
    what = f"The image processor of {spec} ({type(processor).__name__})"

    def own(image: Image.Image) -> Tensor:
        try:
            return torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])
        except Exception as error:
            raise ModelError(f"{what} gives no pixel_values: {_reason(error)}") from error

    check(found, own, what)
    return found


def _labels(config: Any) -> tuple[str, ...]:
    """The class names; nothing where they are made up of numbers."""
    named = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    if all(name == f"LABEL_{index}" for index, name in named.items()):
        return ()
    return tuple(named.get(index, str(index)) for index in range(max(named) + 1))


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")
