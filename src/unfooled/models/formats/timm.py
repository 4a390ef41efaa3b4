"""Networks of timm, with the preparation of images and the class names that their own configuration gives."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ...errors import MissingData, MissingExtra, ModelError, ParameterError, UnknownName, must_be
from ..classifier import Model
from ..facts import Facts
from ..pixels import Crop, Pixels, Resize, Step, check
from ..vision import torchvision
from ..weights import fit, read
from .stated import Stated

HUB = "hf-hub:"
FILES = ("model.safetensors", "pytorch_model.bin", "model.pth", "pytorch_model.pth")  # in a folder, the first there is


def load(
    spec: str, weights: Path | None, allow_code: bool, *, classes: int | None = None, channels: int | None = None,
    mean: Any = None, std: Any = None, size: Any = None,
) -> Model:  # fmt: skip
    """`timm:NAME`, `timm:FOLDER` or `timm:hf-hub:OWNER/NAME`.

    A folder holds config.json and the weights, as timm saves them. Of a name the weights are a local checkpoint
    (safetensors, or what timm's training writes; the averaged weights where there are some), else the hub's.

    classes, channels:  of the network; None: as the checkpoint's first and last layer have them.
    mean, std, size:    of a network that was trained otherwise than its configuration says: see `Stated`.

    Raises `MissingExtra`, `MissingData`, `ModelError`, `ParameterError`.
    """
    for name, given, least in (("classes", classes, 2), ("channels", channels, 1)):
        if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < least):
            raise must_be(spec, name, f"an int of at least {least}", given)
    package, stated = installed(), Stated.read(spec, mean, std, size)
    name = spec.removeprefix("timm:")
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    config: dict[str, Any] = {}
    if name.startswith("local-dir:") or folder.is_dir():
        config = _configuration(folder)
        name, weights = config["architecture"], weights or _weights_in(folder)
    elif name.startswith((".", "/", "~")):
        raise MissingData(f"There is no folder {name} with a model of timm.")
    elif "/" in name and not name.startswith(HUB):
        name = HUB + name
    if not name.startswith(HUB) and not package.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], package.list_models(), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "timm.list_models() lists them."
        raise UnknownName(f"There is no network of timm named {name!r}. {hint}")
    if weights is None:
        network, source = _from_hub(package, spec, name, classes, channels, stated), "the hub"
    else:
        network, source = _from_checkpoint(package, name, config, weights, classes, channels, stated), str(weights)
    return adapted(package, network, f"timm, {name}", source, stated)


def installed() -> ModuleType:
    """timm, imported. Raises `MissingExtra`."""
    if importlib.util.find_spec("timm") is None or torchvision() is None:
        raise MissingExtra('Networks of timm need timm and torchvision: pip install "unfooled[hub]"')
    return importlib.import_module("timm")


def adapted(package: ModuleType, network: nn.Module, form: str, source: str, stated: Stated) -> Pixels:
    """A network of timm as a model of pixels; its preparation of images is compared with timm's own."""
    about = dict(getattr(network, "pretrained_cfg", {}))
    channels = _channels(network, about)
    config = data_config(package, about, channels, stated)
    found = Pixels(
        network.eval(), steps(config), config["mean"], config["std"], channels,
        Facts(form, source, tuple(config["input_size"]), classes=_names(package, network, about)),
    )  # fmt: skip
    if channels in (1, 3):
        check(found, package.data.create_transform(**config, is_training=False), form)
    return found


def data_config(package: ModuleType, about: Mapping[str, Any], channels: int, stated: Stated) -> dict[str, Any]:
    """What timm's evaluation does to images, as its `create_transform` takes it."""
    changed: dict[str, Any] = {}
    size = stated.size or tuple(about.get("input_size", (3, 224, 224)))[1:]
    changed["input_size"] = (channels, *size)
    for name in ("mean", "std"):
        values = getattr(stated, name) or about.get(name)
        if values is not None:
            values = [float(value) for value in ([values] if isinstance(values, int | float) else values)]
            fits = len(values) in (1, channels)
            values = values if fits else [sum(values) / len(values)]  # as timm itself does for other channels
            changed[name] = tuple(values) * (channels // len(values))
    found: dict[str, Any] = package.data.resolve_data_config(changed, pretrained_cfg=dict(about))
    return found


def steps(config: Mapping[str, Any]) -> list[Step]:
    """The resizing and cropping of timm's evaluation."""
    height, width = config["input_size"][1:]
    share, mode, how = config["crop_pct"], config.get("crop_mode", "center"), config["interpolation"]
    tall, wide = math.floor(height / share), math.floor(width / share)
    if mode == "squash":
        return [Resize(tall, wide, "exact", how), Crop(height, width)]
    if mode == "border":
        fill = tuple(round(255 * value) / 255 for value in config["mean"])
        return [Resize(tall, wide, "inside", how), Crop(height, width, fill)]
    return [Resize(tall, wide, "shorter" if tall == wide else "cover", how), Crop(height, width)]


def _from_hub(
    package: ModuleType, spec: str, name: str, classes: int | None, channels: int | None, stated: Stated
) -> nn.Module:
    """The network with the weights that timm itself finds: in the hub's cache, or the hub."""
    try:
        made: nn.Module = package.create_model(name, pretrained=True, in_chans=channels)
        if stated.size is not None and getattr(made, "pretrained_cfg", {}).get("fixed_input_size"):
            made = package.create_model(name, pretrained=True, in_chans=channels, img_size=stated.size)
    except OSError as error:
        raise unreachable(spec, error, "give a checkpoint with --weights FILE, or a folder with timm:FOLDER") from error
    except Exception as error:
        raise ModelError(f"timm cannot make {name} with its pretrained weights: {_reason(error)}") from error
    have = int(getattr(made, "num_classes", 0))
    _refuse_features(made, f"The pretrained weights of {name}")
    if classes not in (None, have):
        raise ParameterError(
            f"The pretrained weights of {name} have {have} classes: a head for {classes} would not be trained. "
            "Leave classes out, or give a checkpoint that has it."
        )
    return made


def _from_checkpoint(
    package: ModuleType, name: str, config: Mapping[str, Any], weights: Path,
    classes: int | None, channels: int | None, stated: Stated,
) -> nn.Module:  # fmt: skip
    state = _state(weights)
    about = dict(config.get("pretrained_cfg", {})) or _about(package, name)
    head, stem = (_shape(state, about.get(key)) for key in ("classifier", "first_conv"))
    if head and classes not in (None, head[0]):
        raise ParameterError(f"The classifier in {weights} has {head[0]} classes. Got classes={classes}: leave it out.")
    options = dict(config.get("model_args", {}))
    classes = classes or (head[0] if head else config.get("num_classes"))
    if channels is None and stem and stem[1] in (1, 2, 4):  # more stands for a stem that folds pixels into channels
        channels = stem[1]
    options |= {k: v for k, v in (("num_classes", classes), ("in_chans", channels)) if v is not None}
    if stated.size is not None and about.get("fixed_input_size"):
        options["img_size"] = stated.size
    if config:
        known = {field.name for field in dataclasses.fields(package.models.PretrainedCfg)} - {"architecture"}
        options["pretrained_cfg"] = {key: value for key, value in about.items() if key in known}
    try:
        network: nn.Module = package.create_model(name, pretrained=False, **options)
    except OSError as error:
        raise unreachable(f"timm:{name}", error, "give a folder with timm:FOLDER") from error
    except Exception as error:
        raise ModelError(f"timm cannot make {name}: {_reason(error)}") from error
    _refuse_features(network, f"The weights in {weights}")
    return fit(network, state, weights)


def _refuse_features(network: nn.Module, what: str) -> None:
    if int(getattr(network, "num_classes", 1)) == 0:
        raise ModelError(f"{what} give features: they have no classifier. Give a checkpoint with one.")


def _state(weights: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: also of one that was saved from the adapter made here."""
    state = read(weights)
    inner = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    return inner if len(inner) == len(state) else state


def _about(package: ModuleType, name: str) -> dict[str, Any]:
    """What timm knows of a network before it is made; nothing for one of the hub."""
    if name.startswith(HUB):
        return {}
    try:
        found = package.get_pretrained_cfg(name)
    except Exception as error:
        raise ModelError(f"timm does not know {name}: {_reason(error)}") from error
    return {} if found is None else dict(found.to_dict())


def _shape(state: Mapping[str, Tensor], layer: Any) -> tuple[int, ...] | None:
    """The shape of a layer's weight; None where the checkpoint has none of that name."""
    names = [layer] if isinstance(layer, str) else layer or []
    found = [tuple(state[f"{name}.weight"].shape) for name in names if f"{name}.weight" in state]
    return found[0] if found and len(found[0]) >= 2 else None


def _channels(network: nn.Module, about: Mapping[str, Any]) -> int:
    given = getattr(network, "in_chans", None)
    channels, _, _ = about.get("input_size", (3, 224, 224))
    return given if isinstance(given, int) else int(channels)


def _configuration(folder: Path) -> dict[str, Any]:
    """The config.json of a folder, as timm saves it: the old form has one level, the new one two."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingData(f"There is no config.json in {folder}: a folder of timm has one, and the weights.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("architecture"), str):
        raise ModelError(f"{path} names no architecture of timm. For a model of transformers write hf:{folder}.")
    about = dict(found.get("pretrained_cfg", found))
    for name in ("num_classes", "label_names", "labels"):
        if name in found:
            about["label_names" if name == "labels" else name] = found[name]
    options = dict(found.get("model_args") or {})
    channels, height, width = about.get("input_size", (3, 224, 224))
    sides = options.get("img_size") if about.get("fixed_input_size") else None
    height, width = (sides, sides) if isinstance(sides, int) else sides or (height, width)
    about["input_size"] = (options.get("in_chans") or channels, height, width)
    return {**found, "pretrained_cfg": about, "model_args": options}


def _weights_in(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise MissingData(f"There are no weights in {folder}: a folder of timm has {FILES[0]}.")


def _names(package: ModuleType, network: nn.Module, about: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names of the configuration, else ImageNet's where the network is as large as one that was trained on it."""
    count, named = int(getattr(network, "num_classes", 0)), about.get("label_names")
    if isinstance(named, Mapping):
        by_index = {int(index): str(name) for index, name in named.items()}
        named = [by_index.get(index, str(index)) for index in range(count)]
    if isinstance(named, Sequence) and len(named) == count:
        return tuple(map(str, named))
    subset = package.data.infer_imagenet_subset({"num_classes": count}) if about.get("num_classes") == count else None
    return tuple(package.data.ImageNetInfo(subset).label_names()) if subset else ()


def unreachable(spec: str, error: Exception, instead: str) -> MissingData:
    """What to say where a hub gives nothing."""
    return MissingData(
        f"{spec} is not here, and the hub did not give it ({_reason(error)}). Without a network, {instead}."
    )


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
