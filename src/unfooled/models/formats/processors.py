"""The settings of an image processor of transformers, as steps in torch. What is not known here, a comparison finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from ...errors import ModelError
from ..pixels import Crop, Flip, Resize, Step

About = Mapping[str, Any]
WARPED = 384  # from this side on ConvNeXt's processor resizes without keeping proportions, and does not crop


@dataclass(frozen=True)
class Preparation:
    """What is done to images (N, C, H, W) in [0, 1]: steps, then mean and std, in units of [0, 1] pixels."""

    steps: tuple[Step, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> Preparation:
        """As the settings of a processor say. Raises `ModelError` for settings that are not known here."""
        name = type(processor).__name__
        kind = name.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
        # the parts that work on arrays, not on tensors, put an odd row of padding first
        tensors = getattr(processor, "backend", "torchvision" if name.endswith("Fast") else "pil") == "torchvision"
        about = processor.to_dict()
        try:
            return cls(_steps(about, kind, "after" if tensors else "before"), *_affine(about, kind))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"The settings of the image processor {name} are not known here ({type(error).__name__}: {error}). "
                "Load the model in a file of your own, file.py:factory, with its preparation in torch."
            ) from error

    def size(self, channels: int) -> tuple[int, int, int] | None:
        """(C, H, W) afterwards; None: it depends on the images."""
        sized = [step for step in self.steps if not isinstance(step, Flip)]
        last = sized[-1] if sized else None
        if isinstance(last, Crop) or (isinstance(last, Resize) and last.rule == "exact"):
            return channels, last.height, last.width
        return None


def _steps(about: About, kind: str, pad: Literal["after", "before"]) -> tuple[Step, ...]:
    found: list[Step] = []
    if about.get("do_resize"):
        how = Image.Resampling(int(about.get("resample") or 0)).name.lower()
        found += RESIZING.get(kind, _resize)(about, how, pad)
    if about.get("do_center_crop"):
        found.append(Crop(*_sides(about["crop_size"]), odd="down", pad_odd=pad))
    if about.get("do_flip_channel_order") or kind == "PPLCNet":
        found.append(Flip())
    return tuple(found)


def _affine(about: About, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in [0, 1], of processors that multiply pixels of 0 to 255 by a factor first, or do not."""
    scale = 255 * float(about.get("rescale_factor") or 1) if about.get("do_rescale") else 255.0
    scale = round(scale, 12)
    offset = 1.0 if about.get("rescale_offset") else 0.0
    mean = _floats(about["image_mean"]) if about.get("do_normalize") else (0.0,)
    std = _floats(about["image_std"]) if about.get("do_normalize") else (1.0,)
    again = _floats(about["image_std"]) if about.get("include_top") else (1.0,)  # EfficientNet's divides twice
    if len(again) == 1:
        again *= len(std)
    elif len(std) == 1:
        mean, std = mean * len(again), std * len(again)
    mean = tuple((value + offset) / scale for value in mean)
    std = tuple(first * second / scale for first, second in zip(std, again, strict=True))
    return (mean[::-1], std[::-1]) if kind == "PPLCNet" else (mean, std)  # it turns the channels round after this


def _floats(given: Any) -> tuple[float, ...]:
    return (float(given),) if isinstance(given, int | float) else tuple(map(float, given))


def _sides(size: Any) -> tuple[int, int]:
    """Height and width of a size, which older files give as one number."""
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _shorter(size: Any) -> int | None:
    """The length that a size gives the shorter side, and nothing else; None: it says another thing."""
    given = {} if isinstance(size, int) else {name: value for name, value in dict(size).items() if value}
    return int(given["shortest_edge"]) if set(given) == {"shortest_edge"} else None


def _resize(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    shorter = _shorter(about["size"])
    if shorter is not None:
        return [Resize(shorter, shorter, "shorter", how)]
    return [Resize(*_sides(about["size"]), "exact", how)]


def _convnext(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    side = int(about["size"]["shortest_edge"])
    if side >= WARPED:
        return [Resize(side, side, "exact", how)]
    whole = int(side / float(about["crop_pct"]))
    return [Resize(whole, whole, "shorter", how), Crop(side, side, odd="down", pad_odd=pad)]


def _levit(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    shorter = _shorter(about["size"])
    whole = None if shorter is None else int(256 / 224 * shorter)
    return _resize(about, how, pad) if whole is None else [Resize(whole, whole, "shorter", how)]


def _poolformer(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    share, shorter = about.get("crop_pct"), _shorter(about["size"])
    if share is None:
        return _resize(about, how, pad)
    height, width = (shorter, shorter) if shorter is not None else _sides(about["size"])
    tall, wide = int(height / share), int(width / share)
    return [Resize(tall, wide, "shorter" if height == width else "exact", how)]


def _textnet(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    side = int(about["size"]["shortest_edge"])
    return [Resize(side, side, "shorter", how, multiple=int(about["size_divisor"]))]


def _pplcnet(about: About, how: str, pad: Literal["after", "before"]) -> list[Step]:
    side = about.get("resize_short")
    if side is None:
        return _resize(about, how, pad)
    return [Resize(int(side), int(side), "cover", how, multiple=int(about.get("size_divisor") or 1))]


RESIZING: dict[str, Callable[[About, str, Literal["after", "before"]], list[Step]]] = {
    "ConvNext": _convnext, "Levit": _levit, "PoolFormer": _poolformer, "TextNet": _textnet, "PPLCNet": _pplcnet,
}  # fmt: skip
